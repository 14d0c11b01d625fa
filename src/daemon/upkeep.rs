//! Looks after the store: backups, what is kept no longer, and the file itself after a deletion.
//!
//! The same work whether the daemon does it, or a command while no daemon runs. One thing at a time;
//! requests and the daemon's own round wait for one another.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::TryLockError;
use std::time::Duration;
use std::time::SystemTime;

use tracing::debug;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::clock::Clock;
use crate::clock::ClockQuality;
use crate::clock::Moment;
use crate::clock::UtcTime;
use crate::config::StoreConfig;
use crate::config::retention::RetentionConfig;
use crate::daemon::claim;
use crate::roster::Roster;
use crate::roster::RosterError;
use crate::roster::audit::RETENTION;
use crate::shutdown::StopSignal;
use crate::store::Archive;
use crate::store::AuditAct;
use crate::store::Change;
use crate::store::ScrubReport;
use crate::store::Setting;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::backup;
use crate::store::database::Database;
use crate::store::keyfile::KeySource;
use crate::store::retention;
use crate::store::retention::ClockWatch;
use crate::store::retention::Enrolled;
use crate::store::retention::Reading;
use crate::store::retention::Verdict;
use crate::web::upkeep::BackupAnswer;
use crate::web::upkeep::DailyBackup;
use crate::web::upkeep::LastBackupAnswer;
use crate::web::upkeep::MaintenanceAnswer;
use crate::web::upkeep::StoreAnswer;
use crate::web::upkeep::Upkeep;

/// Pause between looks at deletions whose records are still in the file. The file is rewritten as
/// a whole, so on an SD card a burst of deletions must share one rewriting.
const SCRUB_PERIOD: Duration = Duration::from_secs(60);
/// Longest time without a look at what is older than it may be. Above a day and the timer's spread,
/// so that with the daily command the daemon adds no rewriting of the file of its own.
const RETENTION_PERIOD: Duration = Duration::from_secs(30 * 3600);

/// Looks after one store.
pub struct Caretaker {
    parts: CaretakerParts,
    key_file: String,
    busy: Mutex<()>,
    /// When retention was last looked at, by whoever asked.
    pruned: Mutex<Option<Moment>>,
    clock_watch: Mutex<ClockWatch>,
}

/// What it works with.
pub struct CaretakerParts {
    /// The store on its medium.
    pub archive: Arc<dyn Archive>,
    /// The same store, for what it holds.
    pub store: Arc<dyn Store>,
    /// Who is enrolled in it.
    pub roster: Arc<Roster>,
    /// How long things stay.
    pub retention: RetentionConfig,
    /// The directory of the store.
    pub dir: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// What left the store because it was too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pruned {
    events: u64,
    persons: usize,
}

impl Caretaker {
    /// Looks after the store of a configuration.
    pub fn new(parts: CaretakerParts, config: &StoreConfig) -> Self {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
        let source = KeySource::choose(config, credentials.as_deref());
        let key_file = source.path().display().to_string();
        let clock_watch = Mutex::new(ClockWatch::new(Reading::of(&*parts.clock)));
        Self { parts, key_file, busy: Mutex::default(), pruned: Mutex::default(), clock_watch }
    }

    /// Drops what is older than the configuration keeps it, and its bytes from the file. With a
    /// clock that nobody has set, or that was just put elsewhere, nothing is old: one step of it
    /// could be years.
    fn prune(&self) -> Result<Pruned, StoreError> {
        *lock(&self.pruned) = Some(self.parts.clock.now());
        if !self.is_clock_trusted()? {
            return Ok(Pruned::default());
        }
        let (store, now) = (&*self.parts.store, self.parts.clock.utc());
        // People first: the log that tells who was seen is shorter afterwards.
        let persons = self.delete_inactive(now)?;
        let events = match self.parts.retention.events {
            Some(age_max) => retention::drop_old_events(store, age_max, now)?,
            None => 0,
        };
        let value = now.as_millis().to_le_bytes().to_vec();
        store.commit(&Change::PutSetting { setting: Setting::Pruned, value })?;
        if persons > 0 || events > 0 {
            self.parts.roster.scrub()?;
            info!(events, persons, "retention_applied");
        }
        Ok(Pruned { events, persons })
    }

    fn is_clock_trusted(&self) -> Result<bool, StoreError> {
        let last = self.parts.store.setting(Setting::Pruned)?;
        let last = last.and_then(|bytes| bytes.try_into().ok()).map(i64::from_le_bytes);
        let shown = Reading::of(&*self.parts.clock);
        let verdict = lock(&self.clock_watch).judge(shown, last.map(UtcTime::from_millis));
        let remedy = match verdict {
            Verdict::Trusted => return Ok(true),
            Verdict::Unset => "give the device a time server or a battery-backed clock",
            Verdict::Moved => "look at the device's time; nothing is dropped for a week",
        };
        warn!(time = %shown.utc, remedy, "retention_waits_for_the_clock");
        Ok(false)
    }

    /// Removes databases that were replaced long ago, by a clock that somebody has set.
    fn remove_replaced(&self) -> Result<Vec<PathBuf>, StoreError> {
        if self.parts.clock.quality() == ClockQuality::Unsynced {
            return Ok(Vec::new());
        }
        backup::remove_replaced(&self.parts.dir, Database::FILE_NAME, SystemTime::now())
            .map_err(|error| StoreError::Io { reason: error.to_string() })
    }

    /// What the daemon does of its own accord when nobody asked for it in time.
    fn keep_promises(&self) -> Result<Pruned, StoreError> {
        let _working = self.working();
        let removed = self.remove_replaced();
        let pruned = self.prune();
        removed?;
        pruned
    }

    fn is_prune_due(&self) -> bool {
        let now = self.parts.clock.now();
        lock(&self.pruned).is_none_or(|last| now.since(last) >= RETENTION_PERIOD)
    }

    fn delete_inactive(&self, now: UtcTime) -> Result<usize, StoreError> {
        let Some(age_max) = self.parts.retention.inactive else { return Ok(0) };
        let roster = &self.parts.roster;
        let mut enrolled = Vec::new();
        for (collection, _) in roster.collections() {
            let Some(gallery) = roster.gallery(&collection) else { continue };
            enrolled.extend(gallery.members().map(|member| Enrolled {
                collection: collection.clone(),
                id: member.id.clone(),
                updated: member.updated,
            }));
        }
        let mut deleted = 0;
        for person in retention::inactive(&*self.parts.store, enrolled, age_max, now)? {
            let subject = format!("{}/{}", person.collection, person.id);
            roster.audit().before(RETENTION, AuditAct::DeletePerson, &subject)?;
            match roster.delete_person(&person.collection, &person.id) {
                Ok(_) => deleted += 1,
                Err(RosterError::Store(error)) => return Err(error),
                // Somebody else was quicker.
                Err(_) => {}
            }
        }
        Ok(deleted)
    }

    fn make_backup(&self, keep: Option<usize>) -> Result<BackupAnswer, StoreError> {
        let now = self.parts.clock.utc();
        let dir = backup::default_dir(&self.parts.dir);
        backup::prepare(&dir)?;
        let statistics = self.parts.archive.statistics()?;
        backup::require_room(&dir, statistics.file_bytes)?;
        let path = dir.join(backup::file_name(&statistics.id, now));
        let exported = backup::write(&path, |out| self.parts.archive.export(now, out))?;
        let removed = match keep {
            Some(keep) => backup::rotate(&dir, keep, &path, now)?,
            None => Vec::new(),
        };
        Ok(BackupAnswer {
            file: shown(&path),
            bytes: exported.bytes,
            records: exported.records,
            schema_version: exported.schema_version,
            key_file: self.key_file.clone(),
            removed: removed.iter().map(|path| shown(path)).collect(),
        })
    }

    /// Removes what was deleted from the file, unless a backup or maintenance is at work; `None` if
    /// so. A scrub waits for whoever reads, with the writers behind it and new readers behind them,
    /// and a backup reads for minutes: it must not begin beside one.
    fn scrub_unless_busy(&self) -> Option<Result<ScrubReport, StoreError>> {
        let _working = match self.busy.try_lock() {
            Ok(working) => working,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(self.parts.roster.scrub())
    }

    fn working(&self) -> MutexGuard<'_, ()> {
        lock(&self.busy)
    }
}

impl Upkeep for Caretaker {
    fn info(&self) -> Result<StoreAnswer, StoreError> {
        let statistics = self.parts.archive.statistics()?;
        let unreadable = |error: std::io::Error| StoreError::Io { reason: error.to_string() };
        let dir = backup::default_dir(&self.parts.dir);
        let backups = backup::list(&dir).map_err(unreadable)?;
        let replaced =
            backup::replaced(&self.parts.dir, Database::FILE_NAME).map_err(unreadable)?;
        Ok(StoreAnswer {
            file_bytes: statistics.file_bytes,
            schema_version: statistics.schema_version,
            program: statistics.program,
            migrated_from: statistics.migrated_from,
            collections: statistics.collections,
            persons: statistics.persons,
            images: statistics.images,
            keys: statistics.keys,
            events: statistics.events,
            events_dropped: self.parts.store.event_bounds()?.dropped,
            oldest_event: retention::oldest_event(&*self.parts.store)?,
            scrub_owed: statistics.scrub_owed,
            backups: backups.len(),
            last_backup: backups.last().map(|file| LastBackupAnswer {
                file: shown(&file.path),
                created: file.created,
                bytes: file.bytes,
            }),
            replaced: replaced.iter().map(|path| shown(path)).collect(),
        })
    }

    fn back_up(&self, keep: Option<usize>) -> Result<BackupAnswer, StoreError> {
        let _working = self.working();
        let made = self.make_backup(keep)?;
        info!(file = made.file, bytes = made.bytes, "backup_made");
        Ok(made)
    }

    fn maintain(&self, backup: DailyBackup) -> Result<MaintenanceAnswer, StoreError> {
        let _working = self.working();
        // What takes room goes first, and none of the three keeps the others from being done.
        let removed = self.remove_replaced();
        let pruned = self.prune();
        // After the deletions, so that the newest backup no longer holds what they removed.
        let backup = match backup {
            DailyBackup::Made => {
                self.make_backup(Some(self.parts.retention.backups_keep)).map(Some)
            }
            DailyBackup::LeftOut => Ok(None),
        };
        let (removed, pruned, backup) = (removed?, pruned?, backup?);
        info!(backup = backup.as_ref().map(|made| &made.file), "maintenance_done");
        Ok(MaintenanceAnswer {
            events_dropped: pruned.events,
            persons_deleted: pruned.persons,
            replaced_removed: removed.iter().map(|path| shown(path)).collect(),
            backup,
        })
    }
}

/// Until the stop: writes down what was searched, removes what was deleted from the file, soon after
/// the deletion and off its way, with the claim file whose key was revoked, and what is too old when
/// the daily command has not: a device without that command keeps its promises, too.
pub async fn run(caretaker: Arc<Caretaker>, mut stop: StopSignal) {
    loop {
        tokio::select! {
            () = stop.wait() => return write_counted(&caretaker).await,
            () = tokio::time::sleep(SCRUB_PERIOD) => {}
        }
        write_counted(&caretaker).await;
        if caretaker.is_prune_due() {
            let own = Arc::clone(&caretaker);
            match tokio::task::spawn_blocking(move || own.keep_promises()).await {
                Ok(Ok(pruned)) => debug!(?pruned, "retention_checked"),
                Ok(Err(error)) => warn!(%error, "retention_failed"),
                Err(error) => error!(%error, "retention_failed"),
            }
        }
        let own = Arc::clone(&caretaker);
        let scrub = move || {
            // Whoever else has scrubbed: the key may have been revoked since the last look.
            claim::forget_revoked(&own.parts.dir, &own.parts.roster);
            if own.parts.roster.scrub_owed() { own.scrub_unless_busy() } else { None }
        };
        match tokio::task::spawn_blocking(scrub).await {
            Ok(None) => {}
            Ok(Some(Ok(report))) => debug!(?report, "store_scrubbed"),
            Ok(Some(Err(error))) => warn!(%error, "store_scrub_failed"),
            Err(error) => error!(%error, "store_scrub_failed"),
        }
    }
}

/// What was searched since the last time goes to the audit log.
async fn write_counted(caretaker: &Caretaker) {
    let roster = Arc::clone(&caretaker.parts.roster);
    match tokio::task::spawn_blocking(move || roster.audit().flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "audit_not_written"),
        Err(error) => error!(%error, "audit_not_written"),
    }
}

/// Whatever panicked left whole files, whole transactions and whole values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::access::event::{Event, EventPerson, EventType};
    use crate::clock::SimulatedClock;
    use crate::face::template::Template;
    use crate::gallery::names::{CollectionName, PersonId};
    use crate::gallery::person::{EmbeddingModelId, FaceStorageType, Person, Reference};
    use crate::store::{AuditLog, ImageChange};

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const BEGIN: UtcTime = UtcTime::from_millis(1_800_000_000_000);

    struct Bench {
        dir: tempfile::TempDir,
        store: Arc<Database>,
        clock: Arc<SimulatedClock>,
        roster: Arc<Roster>,
        caretaker: Caretaker,
    }

    fn staff() -> CollectionName {
        CollectionName::new("staff").unwrap()
    }

    fn person(id: &str) -> Arc<Person> {
        let template = Template::from_embedding(&[1.0, 0.0]).unwrap();
        let model = EmbeddingModelId("m".to_string());
        Arc::new(Person {
            id: PersonId::new(id).unwrap(),
            name: String::new(),
            metadata: BTreeMap::new(),
            storage: FaceStorageType::NoStorage,
            references: vec![Reference { template, model }],
            eye_ratio: None,
            created: BEGIN,
            updated: BEGIN,
        })
    }

    /// A store with `ada` and `bob`, enrolled at the beginning.
    fn bench(inactive: Option<Duration>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let config = StoreConfig { dir: state.clone(), key_file: None, events_max: 1000 };
        let store = Arc::new(Database::open(&config).unwrap());
        store.commit(&Change::CreateCollection { name: staff() }).unwrap();
        let persons = ["ada", "bob"].map(|id| (person(id), ImageChange::Keep)).into();
        store.commit(&Change::PutPersons { collection: staff(), persons }).unwrap();
        let clock = Arc::new(SimulatedClock::new(BEGIN));
        let as_clock: Arc<dyn Clock> = Arc::<SimulatedClock>::clone(&clock);
        let as_store: Arc<dyn Store> = Arc::<Database>::clone(&store);
        let model = EmbeddingModelId("m".to_string());
        let roster = Roster::open(Arc::clone(&as_store), Arc::clone(&as_clock), model, 2).unwrap();
        let roster = Arc::new(roster);
        let parts = CaretakerParts {
            archive: Arc::<Database>::clone(&store),
            store: as_store,
            roster: Arc::clone(&roster),
            retention: RetentionConfig { events: Some(90 * DAY), inactive, backups_keep: 3 },
            dir: state,
            clock: as_clock,
        };
        let caretaker = Caretaker::new(parts, &config);
        Bench { dir, store, clock, roster, caretaker }
    }

    fn sees(bench: &Bench, id: &str) {
        let person =
            EventPerson { id: id.to_string(), name: String::new(), metadata: BTreeMap::new() };
        let event = Event {
            person: Some(person),
            collection: Some("staff".to_string()),
            ..Event::new(EventType::Match, String::new(), "boot", bench.clock.utc())
        };
        bench.store.append_event(&event).unwrap();
    }

    fn people(bench: &Bench) -> usize {
        bench.roster.collections()[0].1
    }

    /// P5, day by day: events and people go on their last day, backups make room, and what left the
    /// store is in no file a week of maintenance later.
    #[test]
    fn a_hundred_days_of_maintenance_keep_what_is_configured() {
        let bench = bench(Some(60 * DAY));
        sees(&bench, "bob");
        for day in 0..100_u32 {
            sees(&bench, "ada");
            let done = bench.caretaker.maintain(DailyBackup::Made).unwrap();
            assert_eq!(done.persons_deleted, usize::from(day == 61), "day {day}");
            assert_eq!(people(&bench), if day < 61 { 2 } else { 1 }, "day {day}");
            let info = bench.caretaker.info().unwrap();
            assert_eq!(info.backups, 3.min(day as usize + 1));
            assert_eq!(info.last_backup.unwrap().created, bench.clock.utc());
            assert!(!info.scrub_owed, "day {day}");
            assert!(info.oldest_event.unwrap() >= bench.clock.utc().minus(90 * DAY));
            bench.clock.advance(DAY);
        }
        let log = bench.store.audit(0, 999).unwrap();
        let rows: Vec<_> = log.iter().map(|e| (e.by.as_str(), e.act, e.subject.as_str())).collect();
        assert_eq!(rows, [(RETENTION, AuditAct::DeletePerson, "staff/bob")]);
    }

    /// A scrub beside a backup held up every reader and writer until the backup was done.
    #[test]
    fn a_scrub_waits_its_turn_and_stays_owed() {
        let bench = bench(None);
        bench.roster.delete_person(&staff(), &PersonId::new("bob").unwrap()).unwrap();
        let backup_under_way = bench.caretaker.working();
        assert!(bench.caretaker.scrub_unless_busy().is_none());
        assert!(bench.roster.scrub_owed());
        drop(backup_under_way);
        assert!(bench.caretaker.scrub_unless_busy().unwrap().unwrap().owed);
        assert!(!bench.roster.scrub_owed());
    }

    #[test]
    fn nobody_is_deleted_unless_it_is_configured() {
        let bench = bench(None);
        bench.clock.advance(1000 * DAY);
        sees(&bench, "ada");
        bench.caretaker.maintain(DailyBackup::LeftOut).unwrap();
        assert_eq!(people(&bench), 2);
        assert_eq!(bench.caretaker.info().unwrap().backups, 0);
    }

    #[test]
    fn a_backup_that_cannot_be_made_is_named_and_the_rest_is_done() {
        let bench = bench(None);
        let state = bench.dir.path().join("state");
        std::fs::write(state.join("backup"), "a file is in the way").unwrap();
        let replaced = state.join("facelatch.redb.schema-1.bak");
        let long_ago = SystemTime::now() - 2 * backup::REPLACED_KEPT;
        std::fs::File::create(&replaced).unwrap().set_modified(long_ago).unwrap();
        sees(&bench, "ada");
        bench.clock.advance(91 * DAY);
        let error = bench.caretaker.maintain(DailyBackup::Made).unwrap_err().to_string();
        assert!(error.contains("state/backup") && error.contains("cannot be made"), "{error}");
        assert!(!replaced.exists(), "what gives room goes although nothing else can be done");
        assert_eq!(bench.store.event_bounds().unwrap().dropped, 1);
        bench.caretaker.maintain(DailyBackup::LeftOut).unwrap();
    }

    #[test]
    fn the_daily_command_leaves_the_daemon_nothing_to_do() {
        let bench = bench(None);
        assert!(bench.caretaker.is_prune_due());
        for _ in 0..3 {
            bench.caretaker.maintain(DailyBackup::LeftOut).unwrap();
            bench.clock.advance(DAY);
            assert!(!bench.caretaker.is_prune_due());
        }
        bench.clock.advance(DAY);
        assert!(bench.caretaker.is_prune_due());
    }

    /// A battery-backed clock at its end emptied the log.
    #[test]
    fn a_clock_far_ahead_after_a_restart_drops_nothing() {
        let bench = bench(None);
        sees(&bench, "ada");
        bench.caretaker.maintain(DailyBackup::LeftOut).unwrap();
        let clock = Astray(SimulatedClock::new(BEGIN.plus(15_000 * DAY)));
        let parts = CaretakerParts { clock: Arc::new(clock), ..bench.caretaker.parts };
        let config = StoreConfig { dir: parts.dir.clone(), key_file: None, events_max: 1000 };
        let restarted = Caretaker::new(parts, &config);
        let done = restarted.maintain(DailyBackup::LeftOut).unwrap();
        assert_eq!((done.events_dropped, bench.store.event_bounds().unwrap().dropped), (0, 0));
    }

    /// Set from a battery.
    struct Astray(SimulatedClock);

    impl Clock for Astray {
        fn now(&self) -> Moment {
            self.0.now()
        }

        fn utc(&self) -> UtcTime {
            self.0.utc()
        }

        fn quality(&self) -> ClockQuality {
            ClockQuality::Rtc
        }
    }
}
