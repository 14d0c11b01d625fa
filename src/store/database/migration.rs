//! From an older schema version to the present one.
//!
//! The file as it was is kept first, whole, beside the new one: whoever has to go back to the older
//! program puts it back in its place. It holds what is deleted later, so it does not stay for ever
//! (`store::backup`).

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};

use crate::store::StoreError;
use crate::store::database::{Database, builder, damaged, guarded, meta, not_sealed, refused};
use crate::store::schema::{META, Migration, SEALED_TABLES, SealedTable};
use crate::store::vault::Place;

/// Most older databases that are kept of one version: each came back by a restore and was migrated
/// again within a month.
const COPIES_MAX: u32 = 9;

impl Database {
    /// Runs the steps that are missing, each in one durable transaction.
    pub(super) fn migrate(&self) -> Result<(), StoreError> {
        let mut began_at = None;
        loop {
            let version = self.with_live(|database| {
                let tx = database.begin_read().map_err(refused)?;
                meta::version(&tx.open_table(META).map_err(refused)?)
            })?;
            if version == self.schema.version {
                return Ok(());
            }
            let step = self.schema.migrations.iter().find(|step| step.from == version);
            let step = step.ok_or_else(|| StoreError::Corrupt {
                reason: format!("its schema version is {version}, which never existed"),
            })?;
            if began_at.is_none() {
                self.keep_older(version)?;
            }
            let began_at = *began_at.get_or_insert(version);
            self.write(|tx| self.run(tx, step, began_at))?;
            tracing::info!(from = step.from, to = step.from + 1, "store_migrated");
        }
    }

    /// Keeps the file as the older program would find it: closed well, and not by a crash. What was
    /// kept by an attempt that got no further is not copied again, and what was kept of another state
    /// stays.
    fn keep_older(&self, version: u32) -> Result<(), StoreError> {
        let _writing = self.writing();
        let own = self.read(entries)?;
        self.replace_live(None);
        for copy in 1..=COPIES_MAX {
            let suffix = match copy {
                1 => format!("schema-{version}.bak"),
                _ => format!("schema-{version}-{copy}.bak"),
            };
            let Some(kept) = self.medium.kept(&suffix, &builder(0)) else {
                return self.medium.keep_copy(&suffix).map_err(refused);
            };
            let of_copy =
                guarded(|| entries(&kept.map_err(refused)?.begin_read().map_err(refused)?));
            if of_copy.is_ok_and(|of_copy| of_copy == own) {
                return Ok(());
            }
        }
        let reason = format!("{COPIES_MAX} older databases are kept beside it; remove some (.bak)");
        Err(StoreError::Io { reason })
    }

    /// Every record is opened as the old version and sealed as the new one, which is part of what
    /// it is sealed with.
    fn run(
        &self,
        tx: &WriteTransaction,
        step: &Migration,
        began_at: u32,
    ) -> Result<(), StoreError> {
        for table in SEALED_TABLES {
            let mut records = tx.open_table(table.definition()).map_err(refused)?;
            let mut next = records.first().map_err(refused)?.map(|(key, _)| key.value().to_vec());
            while let Some(key) = next {
                let sealed = records.get(key.as_slice()).map_err(refused)?;
                let sealed = sealed.map(|sealed| self.rewrite(step, table, &key, sealed.value()));
                if let Some(sealed) = sealed.transpose()? {
                    records.insert(key.as_slice(), sealed.as_slice()).map_err(refused)?;
                }
                // A zero byte more is the least key above this one.
                let above = [key.as_slice(), &[0]].concat();
                let mut rest = records.range(above.as_slice()..).map_err(refused)?;
                let following = rest.next().transpose().map_err(refused)?;
                next = following.map(|(key, _)| key.value().to_vec());
            }
        }
        let mut meta = tx.open_table(META).map_err(refused)?;
        meta::write_key_check(&mut meta, &self.vault, step.from + 1)?;
        meta::set_migrated_from(&mut meta, began_at)?;
        meta::set_program(&mut meta)?;
        drop(meta);
        // The old form may have held what the new one is meant to be without.
        meta::owe_scrub(tx)
    }

    fn rewrite(
        &self,
        step: &Migration,
        table: SealedTable,
        id: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let old = Place { table: table.name(), id, version: step.from };
        let new = Place { version: step.from + 1, ..old };
        let plain = self.vault.open(&old, sealed).map_err(|error| damaged(table, &error))?;
        let plain = (step.rewrite)(table, &plain).map_err(|error| damaged(table, &error))?;
        self.vault.seal(&new, &plain).map_err(|error| not_sealed(table, &error))
    }
}

/// What tells one state of a store from every other: the number of its commits, and a sealed text
/// that is sealed anew for every store and version.
fn entries(tx: &ReadTransaction) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let meta = tx.open_table(META).map_err(refused)?;
    let mut found = Vec::new();
    for entry in meta.iter().map_err(refused)? {
        let (name, value) = entry.map_err(refused)?;
        found.push((name.value().to_string(), value.value().to_vec()));
    }
    Ok(found)
}
