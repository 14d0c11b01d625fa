//! From configuration to a service that answers requests: the part of the start that the daemon
//! and the command line share.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ModelsConfig};
use crate::daemon::metered::MeteredStore;
use crate::daemon::upkeep::{Caretaker, CaretakerParts};
use crate::gallery::person::EmbeddingModelId;
use crate::inference::manifest::{Manifest, ManifestError};
use crate::inference::{ModelLoader, Pack};
use crate::recognition::pool::{PoolOptions, RecognizerPool};
use crate::recognition::{Recognizer, info};
use crate::roster::Roster;
use crate::store::Store;
use crate::store::database::Database;
use crate::store::feed::EventFeed;
use crate::telemetry::Metrics;
use crate::web::events::EventLog;
use crate::web::service::{Recognition, Service, ServiceOptions, Status};
use crate::web::stream::Pace;

/// Everything that answers requests.
pub struct Assembly {
    /// Where people, keys and events are kept.
    pub store: Arc<dyn Store>,
    /// Told of every event that the log has taken.
    pub feed: Arc<EventFeed>,
    /// Who is enrolled.
    pub roster: Arc<Roster>,
    /// Looks after the store.
    pub caretaker: Arc<Caretaker>,
    /// The models at work, or why there are none.
    pub recognition: Recognition,
    /// Answers requests.
    pub service: Arc<Service>,
}

/// What the surroundings tell the service.
pub struct Surroundings {
    /// Cameras and broker.
    pub status: Arc<dyn Status>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Checked models of the configured pack; `builtin` when nothing else is installed or chosen.
pub fn pack(models: &ModelsConfig) -> Result<Pack, ManifestError> {
    Manifest::embedded().choose(&models.pack, models.embedding.as_deref(), &models.dir)
}

/// ONNX Runtime, where this build has it.
#[cfg(feature = "onnx")]
pub fn loader(models: &ModelsConfig) -> anyhow::Result<Box<dyn ModelLoader>> {
    use crate::inference::onnx::OnnxLoader;
    Ok(Box::new(OnnxLoader::new(models.runtime.as_deref())?))
}

/// ONNX Runtime, where this build has it.
#[cfg(not(feature = "onnx"))]
pub fn loader(_models: &ModelsConfig) -> anyhow::Result<Box<dyn ModelLoader>> {
    let reason = "this program was built without the feature `onnx`".to_string();
    Err(crate::inference::InferenceError::Runtime { reason }.into())
}

/// Opens the store for work that needs no models, such as the keys': it is then quick, and goes on
/// when a model file is damaged. Whoever asks for recognition is told that there is none.
pub fn assemble_without_models(
    config: &Config,
    surroundings: Surroundings,
) -> anyhow::Result<Assembly> {
    let reason = "this command loads no models".to_string();
    assemble_on(Database::open(&config.store)?, config, surroundings, unavailable(reason))
}

/// Opens the store and loads the models. A store that cannot be opened and a model file that is
/// not the one in the manifest are errors; models or a runtime that are missing leave a service
/// that does everything else.
pub fn assemble(config: &Config, surroundings: Surroundings) -> anyhow::Result<Assembly> {
    let store = Database::open(&config.store)?;
    assemble_on(store, config, surroundings, recognition(&config.models)?)
}

/// The pool, and the model whose templates are searched with their number of components.
type Recognising = (Recognition, EmbeddingModelId, usize);

fn assemble_on(
    store: Database,
    config: &Config,
    surroundings: Surroundings,
    (recognition, model, dimension): Recognising,
) -> anyhow::Result<Assembly> {
    let metered = Arc::new(MeteredStore::new(store, Arc::clone(&surroundings.metrics)));
    let store: Arc<dyn Store> = Arc::clone(&metered) as _;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let roster = Arc::new(Roster::open(Arc::clone(&store), Arc::clone(&clock), model, dimension)?);
    let parts = CaretakerParts {
        archive: metered,
        store: Arc::clone(&store),
        roster: Arc::clone(&roster),
        retention: config.retention,
        dir: config.store.dir.clone(),
        clock,
    };
    let caretaker = Arc::new(Caretaker::new(parts, &config.store));
    let feed = Arc::new(EventFeed::new());
    let service = Arc::new(Service::new(
        Arc::clone(&roster),
        recognition.clone(),
        ServiceOptions {
            metrics: surroundings.metrics,
            metrics_access: config.http.metrics,
            status: surroundings.status,
            events: EventLog::new(Arc::clone(&store), Arc::clone(&feed)),
            upkeep: Some(Arc::clone(&caretaker) as _),
            stream_pace: Pace::default(),
        },
    ));
    Ok(Assembly { store, feed, roster, caretaker, recognition, service })
}

/// No template has this model, so nobody is found, and nobody is lost.
fn unavailable(reason: String) -> Recognising {
    (Recognition::Unavailable { reason }, EmbeddingModelId(String::new()), 1)
}

fn recognition(models: &ModelsConfig) -> anyhow::Result<Recognising> {
    let pack = match pack(models) {
        Ok(pack) => pack,
        Err(error @ (ManifestError::NotInstalled { .. } | ManifestError::Unreadable { .. })) => {
            return Ok(unavailable(error.to_string()));
        }
        Err(error) => return Err(error).context("the models are refused"),
    };
    let info = info(&pack);
    let (model, dimension) = (info.embedding_model.clone(), info.dimension);
    let loader = match loader(models) {
        Ok(loader) => loader,
        Err(error) => {
            let reason = format!("{error:#}");
            return Ok((Recognition::Unavailable { reason }, model, dimension));
        }
    };
    let options = PoolOptions { workers: models.workers, queue_max: models.queue_max };
    let threads = models.threads;
    let make = move || Recognizer::load(&pack, &*loader, threads);
    let pool = RecognizerPool::start(info, options, make).context("the models cannot be loaded")?;
    Ok((Recognition::Ready(pool), model, dimension))
}

/// The machine's id, from which the device id in topics is derived.
pub fn machine_id(store_dir: &Path) -> anyhow::Result<String> {
    for file in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
        if let Ok(text) = std::fs::read_to_string(file)
            && text.trim().len() >= 32
        {
            return Ok(text.trim().to_string());
        }
    }
    own_machine_id(store_dir)
}

/// Containers often have no id; one of our own must survive restarts, and a power cut while it is
/// made: half of one would be replaced by another, and the device would change its topics.
fn own_machine_id(store_dir: &Path) -> anyhow::Result<String> {
    let own = store_dir.join("machine-id");
    if let Ok(text) = std::fs::read_to_string(&own)
        && text.trim().len() >= 32
    {
        return Ok(text.trim().to_string());
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("the operating system gives no random numbers")?;
    let text = format!("{:032x}", u128::from_be_bytes(bytes));
    let shown = || own.display().to_string();
    let mut file = tempfile::NamedTempFile::new_in(store_dir).with_context(shown)?;
    writeln!(file, "{text}").with_context(shown)?;
    file.as_file().sync_all().with_context(shown)?;
    file.persist(&own).with_context(shown)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_our_own_stays_and_half_of_one_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let first = own_machine_id(dir.path()).unwrap();
        assert_eq!((first.len(), own_machine_id(dir.path()).unwrap()), (32, first.clone()));
        std::fs::write(dir.path().join("machine-id"), &first[..8]).unwrap();
        assert_eq!(own_machine_id(dir.path()).unwrap().len(), 32);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no file is left over");
    }
}
