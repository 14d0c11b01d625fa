//! `facelatch person list|enrol|export|delete`.

use std::fs;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::{Value, json};

use crate::cli::api::{Api, is_refusal};
use crate::cli::output::{Progress, UsageError, json, line};
use crate::config::Config;
use crate::eval::dataset::sorted;
use crate::gallery::person::REFERENCES_PER_PERSON_MAX;

/// People per request when all are listed.
const PAGE_PERSONS: usize = 200;

/// Arguments of `facelatch person`.
#[derive(Debug, Args)]
pub struct PersonArgs {
    #[command(subcommand)]
    command: PersonCommand,
}

#[derive(Debug, Subcommand)]
enum PersonCommand {
    /// List the people of a collection
    List {
        /// The collection
        #[arg(long)]
        collection: String,
        /// Only ids and names that contain this text
        #[arg(long, default_value = "")]
        search: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Enrol one person from picture files, or many from a folder with one folder a person
    #[command(after_help = "Examples:\n  \
        facelatch person enrol --collection staff --id F12345 --name Alice alice1.jpg alice2.jpg\n  \
        facelatch person enrol --collection staff --dir people   # people/<id>/*.jpg")]
    Enrol(EnrolArgs),
    /// Write everyone's stored picture and data into a folder that `enrol --dir` reads
    Export {
        /// The collection
        #[arg(long)]
        collection: String,
        /// Folder to write; must not exist yet
        #[arg(long)]
        out: PathBuf,
    },
    /// Delete a person, templates and pictures
    Delete {
        /// The collection
        #[arg(long)]
        collection: String,
        /// The person's id
        id: String,
    },
}

#[derive(Debug, Args)]
struct EnrolArgs {
    /// The collection; it must exist
    #[arg(long)]
    collection: String,
    /// A folder with one folder a person; the folder's name is the id
    #[arg(long, conflicts_with_all = ["id", "name", "images"])]
    dir: Option<PathBuf>,
    /// The person's id
    #[arg(long, required_unless_present = "dir")]
    id: Option<String>,
    /// The person's name [default: the id]
    #[arg(long)]
    name: Option<String>,
    /// Which picture is kept
    #[arg(long, value_enum, default_value_t = Storage::Thumbnail)]
    store: Storage,
    /// Check liveness of each picture
    #[arg(long)]
    liveness: bool,
    /// JPEG or PNG files, one face each, at most 16
    #[arg(required_unless_present = "dir")]
    images: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Storage {
    None,
    Thumbnail,
    Full,
}

impl Storage {
    const fn wire(self) -> &'static str {
        match self {
            Self::None => "NoStorage",
            Self::Thumbnail => "StoreThumbnails",
            Self::Full => "StoreFullImage",
        }
    }
}

/// One person to be enrolled.
struct Candidate {
    id: String,
    name: String,
    metadata: Value,
    images: Vec<PathBuf>,
}

/// Does what was asked.
pub fn run(args: PersonArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut api = match &args.command {
        PersonCommand::Enrol(_) => Api::open(config)?,
        _ => Api::open_without_models(config)?,
    };
    match args.command {
        PersonCommand::List { collection, search, json } => {
            list(&mut api, &collection, &search, json)
        }
        PersonCommand::Enrol(args) => enrol(&mut api, &args),
        PersonCommand::Export { collection, out } => export(&mut api, &collection, &out),
        PersonCommand::Delete { collection, id } => {
            let body = json!({"collection_name": collection, "person_id": id});
            api.send("DELETE", "/person", Some(body))?;
            line(format!("deleted {id}"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(api: &mut Api, collection: &str, search: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for_each_person(api, collection, search, |person| {
        if as_json {
            all.push(person.clone());
        } else {
            let text = |key: &str| person[key].as_str().unwrap_or_default().to_string();
            line(format!("{}  {}", text("person_id"), text("person_name")));
        }
        Ok(())
    })?;
    if as_json {
        json(&Value::Array(all));
    }
    Ok(ExitCode::SUCCESS)
}

/// Visits the people of a collection page by page.
fn for_each_person(
    api: &mut Api,
    collection: &str,
    search: &str,
    mut visit: impl FnMut(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut skip = 0;
    loop {
        let path = format!(
            "/persons?collection_name={}&skip={skip}&take={PAGE_PERSONS}&search={}",
            query_text(collection),
            query_text(search)
        );
        let answer = api.send("GET", &path, None)?;
        let persons = answer["persons"].as_array().map(Vec::as_slice).unwrap_or_default();
        persons.iter().try_for_each(&mut visit)?;
        skip += persons.len();
        if persons.len() < PAGE_PERSONS {
            return Ok(());
        }
    }
}

/// Percent-encodes text for a query.
fn query_text(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

fn enrol(api: &mut Api, args: &EnrolArgs) -> anyhow::Result<ExitCode> {
    let candidates = if let Some(dir) = &args.dir {
        candidates(dir)?
    } else {
        let id = args.id.clone().unwrap_or_default();
        vec![Candidate {
            name: args.name.clone().unwrap_or_else(|| id.clone()),
            id,
            metadata: json!({}),
            images: args.images.clone(),
        }]
    };
    let mut progress = Progress::new("enrolled", candidates.len() as u64);
    let mut problems = Vec::new();
    for candidate in &candidates {
        problems.extend(enrol_one(api, args, candidate)?);
        progress.step();
    }
    progress.finish();
    for problem in &problems {
        line(problem);
    }
    line(format!("{} people, {} pictures refused", candidates.len(), problems.len()));
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Enrols the first good picture and adds the others; answers what was refused and why.
fn enrol_one(
    api: &mut Api,
    args: &EnrolArgs,
    candidate: &Candidate,
) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut enrolled = false;
    for file in candidate.images.iter().take(REFERENCES_PER_PERSON_MAX) {
        let bytes = fs::read(file).with_context(|| file.display().to_string())?;
        let body = json!({
            "collection_name": args.collection,
            "person_id": candidate.id,
            "person_name": candidate.name,
            "metadata": candidate.metadata,
            "face_base_64": BASE64_STANDARD.encode(bytes),
            "face_storage_type": args.store.wire(),
            "check_liveness": args.liveness,
            "add_face": enrolled,
        });
        match api.send("PUT", "/person", Some(body)) {
            Ok(_) => enrolled = true,
            // A refused picture must not stop the others; a missing collection stops everything, and
            // so does a daemon or a runtime that is away.
            Err(error) if !is_refusal(&error) => return Err(error),
            Err(error) if error.to_string().contains("ERR_NOT_FOUND") => return Err(error),
            Err(error) => problems.push(format!("{}: {error:#}", file.display())),
        }
    }
    if candidate.images.len() > REFERENCES_PER_PERSON_MAX {
        let shown = &candidate.id;
        problems.push(format!("{shown}: only {REFERENCES_PER_PERSON_MAX} pictures are used"));
    }
    Ok(problems)
}

/// The people of a folder: one folder each, `person.json` with name and metadata if there is one.
fn candidates(dir: &Path) -> anyhow::Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for folder in sorted(dir)?.into_iter().filter(|path| path.is_dir()) {
        let id = folder.file_name().unwrap_or_default().to_string_lossy().to_string();
        let images: Vec<PathBuf> = sorted(&folder)?.into_iter().filter(|p| is_picture(p)).collect();
        if images.is_empty() {
            continue;
        }
        let about = match fs::read_to_string(folder.join("person.json")) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| folder.join("person.json").display().to_string())?,
            Err(_) => json!({}),
        };
        let written = |key: &str| about[key].as_str().map(str::to_string);
        found.push(Candidate {
            id: written("person_id").unwrap_or_else(|| id.clone()),
            name: written("person_name").unwrap_or_else(|| id.replace('_', " ")),
            metadata: about.get("metadata").cloned().unwrap_or_else(|| json!({})),
            images,
        });
    }
    if found.is_empty() {
        let reason = "holds no folder with pictures; wanted: DIR/<person id>/*.jpg or *.png";
        return Err(UsageError(format!("{} {reason}", dir.display())).into());
    }
    Ok(found)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    matches!(extension.as_str(), "jpg" | "jpeg" | "png")
}

fn export(api: &mut Api, collection: &str, out: &Path) -> anyhow::Result<ExitCode> {
    if out.exists() {
        bail!(UsageError(format!("{} exists already; name a new folder", out.display())));
    }
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(out).with_context(|| out.display().to_string())?;
    let mut persons = Vec::new();
    for_each_person(api, collection, "", |person| {
        persons.push(person["person_id"].as_str().unwrap_or_default().to_string());
        Ok(())
    })?;
    let (mut count, mut without_picture) = (0, 0);
    for id in persons {
        // One by one: an answer with many people leaves out pictures beyond a number of bytes.
        let (collection, id) = (query_text(collection), query_text(&id));
        let path = format!("/person?collection_name={collection}&person_id={id}");
        let person = api.send("GET", &path, None)?;
        count += 1;
        // An id may hold any character, so the folder is numbered and `person.json` names it.
        let folder = out.join(format!("{count:06}"));
        private.create(&folder)?;
        let about = json!({
            "person_id": person["person_id"],
            "person_name": person["person_name"],
            "metadata": person["metadata"],
        });
        fs::write(folder.join("person.json"), format!("{about:#}\n"))?;
        let picture = BASE64_STANDARD
            .decode(person["face_base_64"].as_str().unwrap_or_default())
            .unwrap_or_default();
        if picture.is_empty() {
            without_picture += 1;
        } else {
            let extension = if picture.starts_with(b"\x89PNG") { "png" } else { "jpg" };
            fs::write(folder.join(format!("face.{extension}")), picture)?;
        }
    }
    line(format!("exported {count} people into {}", out.display()));
    if without_picture > 0 {
        line(format!(
            "{without_picture} of them have no stored picture and cannot be enrolled from the export"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::clock::UtcTime;
    use crate::config::{check, raw};
    use crate::face::template::Template;
    use crate::gallery::names::{CollectionName, PersonId};
    use crate::gallery::person::{EmbeddingModelId, FaceStorageType, Person, Reference};
    use crate::store::database::Database;
    use crate::store::{Change, ImageChange, Store as _};

    const PICTURE_BYTES: usize = 2 << 20;

    fn person(id: &str) -> Arc<Person> {
        let template = Template::from_embedding(&[1.0, 0.0]).unwrap();
        Arc::new(Person {
            id: PersonId::new(id).unwrap(),
            name: "Ada".to_string(),
            metadata: BTreeMap::new(),
            storage: FaceStorageType::StoreFullImage,
            references: vec![Reference { template, model: EmbeddingModelId("m".to_string()) }],
            eye_ratio: None,
            created: UtcTime::from_millis(0),
            updated: UtcTime::from_millis(0),
        })
    }

    /// People whose pictures were beyond the bytes of one answer were exported without, and counted
    /// as if none was stored. Anyone on the machine could read the others.
    #[test]
    fn an_export_holds_every_picture_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[store]\ndir = \"{}\"", dir.path().join("state").display());
        let config = check::config("", raw::read("", &text, std::iter::empty()).unwrap()).unwrap();
        let collection = CollectionName::new("staff").unwrap();
        let store = Database::open(&config.store).unwrap();
        store.commit(&Change::CreateCollection { name: collection.clone() }).unwrap();
        let picture: Arc<[u8]> = vec![0xFF; PICTURE_BYTES].into();
        let replace = || ImageChange::Replace(Arc::clone(&picture));
        let persons = (0..20).map(|n| (person(&format!("&id={n}")), replace())).collect();
        store.commit(&Change::PutPersons { collection, persons }).unwrap();
        drop(store);

        let out = dir.path().join("export");
        let mut api = Api::open_without_models(&config).unwrap();
        export(&mut api, "staff", &out).unwrap();
        let pictures = (1..=20).map(|n| out.join(format!("{n:06}/face.jpg")));
        for file in pictures {
            assert_eq!(fs::metadata(&file).unwrap().len(), PICTURE_BYTES as u64, "{file:?}");
        }
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
