//! A backup takes the place of the live database.
//!
//! The backup becomes a fresh database beside the live one, and everything that can be found wrong
//! is found there: digest, schema version, key, signature, every record. Only then is the live
//! database kept under another name and the fresh one renamed over it. So a power cut at any moment
//! leaves the old store or the new one, whole.
//!
//! A restored store is older than the device it comes back to. What must not run backwards is
//! therefore taken over from the database that is replaced, where it can still be read with the same
//! key: the number of the newest event (a number is never given twice, or readers of the log would
//! miss the next events), what the broker has acknowledged, the mode of the door, and the audit log,
//! which nobody shall get rid of by restoring a backup: the restore itself is its newest entry, in the
//! transaction that completes the fresh database.
//!
//! A damaged event, picture or audit record is left out and counted: a store without it is better
//! than none. A damaged person, key or collection is not, since nobody would notice who is missing.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, WriteTransaction};

use crate::clock::UtcTime;
use crate::config::StoreConfig;
use crate::store::archive::{self, ArchiveError, Head};
use crate::store::backup;
use crate::store::database::medium::{DATABASE_FILE_NAME, Directory, Medium};
use crate::store::database::{
    Database, Schema, builder, damaged, durable, guarded, meta, not_sealed, refused,
};
use crate::store::keyfile::KeySource;
use crate::store::schema::{
    self, AUDIT, EVENTS, IMAGES, META, META_AUDIT_DROPPED, META_AUDIT_NEWEST, META_EVENT_NEWEST,
    META_EVENTS_DROPPED, META_SETTING_DOOR, META_SETTING_OUTBOX, SEALED_TABLES, SealedTable,
};
use crate::store::vault::{MasterKey, Place, Vault};
use crate::store::{AUDIT_ENTRIES_MAX, AuditAct, AuditEntry, StoreError};

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// When the backup was made, by the clock of its device.
    pub created: UtcTime,
    /// Version of the program that made it.
    pub program: String,
    /// Schema version of its records.
    pub schema_version: u32,
    /// Records of all kinds.
    pub records: u64,
    /// Damaged events, pictures and audit records that were left out.
    pub damaged: u64,
    /// Name of the file that the replaced database is kept as; `None`: there was none.
    pub kept_as: Option<String>,
}

/// What a restore works with.
pub(super) struct Restorer<'a> {
    pub medium: &'a dyn Medium,
    pub vault: &'a Vault,
    pub key_name: &'a str,
    pub schema: Schema,
    pub backup_name: &'a str,
    pub now: UtcTime,
}

/// What is taken over from the replaced database.
#[derive(Default)]
struct Carried {
    event_newest: u64,
    /// Entries of `meta` that replace those of the backup.
    settings: Vec<(&'static str, Vec<u8>)>,
    /// The audit log, if it has one.
    audit: Option<AuditRing>,
}

/// An audit log, sealed for the schema version of the backup.
struct AuditRing {
    entries: Vec<SealedEntry>,
    newest: u64,
    dropped: u64,
}

/// What may be left out where it is damaged.
const LEFT_OUT_IF_DAMAGED: [SealedTable; 3] = [IMAGES, EVENTS, AUDIT];
/// Who restores, in the audit log: whoever has the store's directory and its key.
const BY: &str = "local";

/// Table and key of a damaged record.
type Damaged = (SealedTable, Vec<u8>);
/// Key and value of a record.
type SealedEntry = (Vec<u8>, Vec<u8>);

impl Database {
    /// Puts a backup in the place of the store of a directory, which nobody may have open. The
    /// directory may be empty but for the key, as on a new device.
    pub fn restore(
        config: &StoreConfig,
        backup: &Path,
        now: UtcTime,
    ) -> Result<Restored, StoreError> {
        let shown = backup.display().to_string();
        let mut file = File::open(backup).map_err(|error| unusable(&shown, &error))?;
        // A file that is no backup is refused before a directory is made for it.
        archive::check(&mut file).map_err(|error| unusable(&shown, &error))?;
        let medium = Directory::lock(&config.dir)?;
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
        let source = KeySource::choose(config, credentials.as_deref());
        let key: MasterKey = source.load()?;
        let restorer = Restorer {
            medium: &medium,
            vault: &Vault::new(&key),
            key_name: &source.path().display().to_string(),
            schema: Schema { version: schema::SCHEMA_VERSION, migrations: schema::MIGRATIONS },
            backup_name: &shown,
            now,
        };
        restorer.run(&mut BufReader::new(file))
    }
}

impl Restorer<'_> {
    pub(super) fn run<R: Read + Seek>(&self, file: &mut R) -> Result<Restored, StoreError> {
        let (head, end) =
            archive::check(file).map_err(|error| unusable(self.backup_name, &error))?;
        if head.schema_version > self.schema.version {
            return Err(meta::too_new(head.schema_version, self.schema.version, head.program));
        }
        let is_ours = self.vault.sign_backup(&end.sha256) == end.signature;
        let filled = guarded(|| self.fill(file, &head, is_ours));
        let (records, damaged) = filled.inspect_err(|_| {
            // The reason of the failure says more than a failure to tidy up after it.
            let _ = self.medium.discard_fresh();
        })?;
        let kept_as = self.keep_replaced()?;
        self.medium.promote_fresh().map_err(refused)?;
        let Head { schema_version, created, program } = head;
        Ok(Restored { created, program, schema_version, records, damaged, kept_as })
    }

    /// Keeps the live database, if there is one.
    fn keep_replaced(&self) -> Result<Option<String>, StoreError> {
        if self.medium.bytes().map_err(refused)?.is_none() {
            return Ok(None);
        }
        let suffix = format!("{}.before-restore", backup::stamp(self.now));
        self.medium.keep_copy(&suffix).map_err(refused)?;
        Ok(Some(format!("{DATABASE_FILE_NAME}.{suffix}")))
    }

    /// Makes the fresh database and looks at all of it; durable but for its name. Answers how many
    /// records it has read, and how many of them are damaged and left out.
    fn fill<R: Read>(
        &self,
        file: &mut R,
        head: &Head,
        is_ours: bool,
    ) -> Result<(u64, u64), StoreError> {
        self.medium.discard_fresh().map_err(refused)?;
        let mut fresh = self.medium.create_fresh(&builder(0)).map_err(refused)?;
        let tx = durable(&fresh)?;
        for table in SEALED_TABLES {
            // Also those that the backup does not have.
            tx.open_table(table.definition()).map_err(refused)?;
        }
        let read = archive::read_tables(file, |table, key, value| insert(&tx, table, key, value));
        let records = read.map_err(|error| match error {
            ReadError::Archive(error) => unusable(self.backup_name, &error),
            ReadError::Store(error) => error,
        })?;
        tx.commit().map_err(refused)?;
        let damaged = self.examine(&fresh, head)?;
        if !is_ours {
            let reason = "it was altered, or joined together from several, since it was made; \
                          use another backup";
            return Err(unusable(self.backup_name, &reason));
        }
        // Only now: a backup that is refused leaves the live database unopened.
        let carried = self.carried(head.schema_version)?;
        let tx = durable(&fresh)?;
        leave_out(&tx, &damaged)?;
        carried.lay_over(&tx)?;
        self.note_restore(&tx, head)?;
        tx.commit().map_err(refused)?;
        fresh.compact().map_err(refused)?;
        fresh.close().map_err(refused)?;
        Ok((records, damaged.len() as u64))
    }

    /// Version and key are those that the backup claims, and every record opens that cannot be left
    /// out; answers those that do not and can.
    fn examine(&self, fresh: &redb::Database, head: &Head) -> Result<Vec<Damaged>, StoreError> {
        let tx = fresh.begin_read().map_err(refused)?;
        let meta = tx.open_table(META).map_err(refused)?;
        let version = meta::version(&meta)?;
        if !meta::is_right_key(&meta, self.vault, version)? {
            let key_file = self.key_name.to_string();
            return Err(StoreError::WrongKey { key_file, path: self.backup_name.to_string() });
        }
        if version != head.schema_version {
            return Err(unusable(self.backup_name, &"it names two schema versions"));
        }
        let mut found = Vec::new();
        for table in SEALED_TABLES {
            let can_be_left_out = LEFT_OUT_IF_DAMAGED.iter().any(|own| own.name() == table.name());
            for entry in
                tx.open_table(table.definition()).map_err(refused)?.iter().map_err(refused)?
            {
                let (id, sealed) = entry.map_err(refused)?;
                let place = Place { table: table.name(), id: id.value(), version };
                match self.vault.open(&place, sealed.value()) {
                    Ok(_) => {}
                    Err(_) if can_be_left_out => found.push((table, id.value().to_vec())),
                    Err(error) => return Err(damaged(table, &error)),
                }
            }
        }
        Ok(found)
    }

    /// The restore as the newest entry of the audit log: whoever restores leaves a trace, or nothing
    /// is restored.
    fn note_restore(&self, tx: &WriteTransaction, head: &Head) -> Result<(), StoreError> {
        let mut meta = tx.open_table(META).map_err(refused)?;
        let mut audit = tx.open_table(AUDIT.definition()).map_err(refused)?;
        let seq = meta::counter(&meta, META_AUDIT_NEWEST)?.saturating_add(1);
        let entry = AuditEntry {
            seq,
            time: self.now,
            by: BY.to_string(),
            act: AuditAct::Restore,
            subject: format!("as of {}", head.created),
            times: 1,
        };
        let plain = schema::encode_audit(&entry).map_err(|error| not_sealed(AUDIT, &error))?;
        let key = schema::event_key(seq);
        let place = Place { table: AUDIT.name(), id: &key, version: head.schema_version };
        let sealed = self.vault.seal(&place, &plain).map_err(|error| not_sealed(AUDIT, &error))?;
        audit.insert(key.as_slice(), sealed.as_slice()).map_err(refused)?;
        if audit.len().map_err(refused)? > AUDIT_ENTRIES_MAX {
            audit.pop_first().map_err(refused)?;
            let dropped = meta::counter(&meta, META_AUDIT_DROPPED)?.saturating_add(1);
            meta::set_counter(&mut meta, META_AUDIT_DROPPED, dropped)?;
        }
        meta::set_counter(&mut meta, META_AUDIT_NEWEST, seq)
    }

    /// What the live database knows, if it is sound and was sealed with the same key. A medium that
    /// cannot be read now is an error: another attempt may find more.
    fn carried(&self, of_version: u32) -> Result<Carried, StoreError> {
        let read = guarded(|| {
            if self.medium.bytes().map_err(refused)?.unwrap_or_default() == 0 {
                return Ok(Carried::default());
            }
            // Opened as the store itself would: what a crash left is repaired before it is kept.
            let live = self.medium.open(&builder(0)).map_err(refused)?;
            let tx = live.begin_read().map_err(refused)?;
            let meta = tx.open_table(META).map_err(refused)?;
            let version = meta::version(&meta)?;
            if !meta::is_right_key(&meta, self.vault, version)? {
                return Ok(Carried::default());
            }
            let audit = match tx.open_table(AUDIT.definition()) {
                // Older than the audit log.
                Err(redb::TableError::TableDoesNotExist(_)) => None,
                table => {
                    let entries = self.entries(&table.map_err(refused)?, version, of_version)?;
                    let newest = meta::counter(&meta, META_AUDIT_NEWEST)?;
                    let dropped = meta::counter(&meta, META_AUDIT_DROPPED)?;
                    Some(AuditRing { entries, newest, dropped })
                }
            };
            let mut settings = Vec::new();
            for name in [META_SETTING_DOOR, META_SETTING_OUTBOX] {
                let value = meta.get(name).map_err(refused)?.map(|value| value.value().to_vec());
                settings.extend(value.map(|value| (name, value)));
            }
            let event_newest = meta::counter(&meta, META_EVENT_NEWEST)?;
            Ok(Carried { event_newest, settings, audit })
        });
        match read {
            Err(error @ StoreError::Io { .. }) => Err(error),
            read => Ok(read.unwrap_or_default()),
        }
    }

    /// The audit log of the live database, sealed as the backup's records are; the migration that
    /// follows brings both to the present form. What is damaged is lost already.
    fn entries(
        &self,
        table: &impl ReadableTable<&'static [u8], &'static [u8]>,
        version: u32,
        of_version: u32,
    ) -> Result<Vec<SealedEntry>, StoreError> {
        let mut found = Vec::new();
        for entry in table.iter().map_err(refused)? {
            let (key, sealed) = entry.map_err(refused)?;
            let place = Place { table: AUDIT.name(), id: key.value(), version };
            let Ok(plain) = self.vault.open(&place, sealed.value()) else { continue };
            let place = Place { version: of_version, ..place };
            let sealed = self.vault.seal(&place, &plain);
            let sealed = sealed.map_err(|error| not_sealed(AUDIT, &error))?;
            found.push((key.value().to_vec(), sealed));
        }
        Ok(found)
    }
}

/// Removes damaged records, and counts the events among them as dropped.
fn leave_out(tx: &WriteTransaction, damaged: &[Damaged]) -> Result<(), StoreError> {
    let mut events = 0;
    for (table, id) in damaged {
        let mut records = tx.open_table(table.definition()).map_err(refused)?;
        records.remove(id.as_slice()).map_err(refused)?;
        events += u64::from(table.name() == EVENTS.name());
    }
    let mut meta = tx.open_table(META).map_err(refused)?;
    let dropped = meta::counter(&meta, META_EVENTS_DROPPED)?.saturating_add(events);
    meta::set_counter(&mut meta, META_EVENTS_DROPPED, dropped)
}

enum ReadError {
    Archive(ArchiveError),
    Store(StoreError),
}

impl From<ArchiveError> for ReadError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn insert(tx: &WriteTransaction, table: &str, key: &[u8], value: &[u8]) -> Result<(), ReadError> {
    if table == schema::META_NAME {
        let name = str::from_utf8(key);
        let name = name.map_err(|_| ArchiveError::Altered("a name is not text"))?;
        let mut meta = tx.open_table(META).map_err(refused)?;
        meta.insert(name, value).map_err(refused)?;
        return Ok(());
    }
    let table = SEALED_TABLES.into_iter().find(|own| own.name() == table);
    let table: SealedTable = table.ok_or(ArchiveError::Altered("it has an unknown table"))?;
    let mut records = tx.open_table(table.definition()).map_err(refused)?;
    records.insert(key, value).map_err(refused)?;
    Ok(())
}

impl Carried {
    /// Lays what is carried over the restored entries. The numbers between the newest event of the
    /// backup and that of the device are of events that are lost, and are counted as such.
    fn lay_over(&self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let mut meta = tx.open_table(META).map_err(refused)?;
        let newest = meta::counter(&meta, META_EVENT_NEWEST)?;
        if let Some(lost) = self.event_newest.checked_sub(newest).filter(|lost| *lost > 0) {
            let dropped = meta::counter(&meta, META_EVENTS_DROPPED)?.saturating_add(lost);
            meta::set_counter(&mut meta, META_EVENTS_DROPPED, dropped)?;
            meta::set_counter(&mut meta, META_EVENT_NEWEST, self.event_newest)?;
        }
        for (name, value) in &self.settings {
            meta.insert(*name, value.as_slice()).map_err(refused)?;
        }
        let Some(AuditRing { entries, newest, dropped }) = &self.audit else { return Ok(()) };
        meta::set_counter(&mut meta, META_AUDIT_NEWEST, *newest)?;
        meta::set_counter(&mut meta, META_AUDIT_DROPPED, *dropped)?;
        let mut audit = tx.open_table(AUDIT.definition()).map_err(refused)?;
        audit.retain(|_, _| false).map_err(refused)?;
        for (key, sealed) in entries {
            audit.insert(key.as_slice(), sealed.as_slice()).map_err(refused)?;
        }
        Ok(())
    }
}

fn unusable(file: &str, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Backup { file: file.to_string(), what: "restored", reason: reason.to_string() }
}
