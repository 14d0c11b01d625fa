//! What the store says of itself, and the copy that it hands out.

use std::io::{self, Write};

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

use crate::clock::UtcTime;
use crate::store::archive::{ArchiveWriter, Head};
use crate::store::database::{Database, damaged, meta, refused};
use crate::store::schema::{self, META, META_SCRUB_OWED, SEALED_TABLES, SealedTable};
use crate::store::vault::Place;
use crate::store::{Archive, Exported, Statistics, StoreError};

impl Archive for Database {
    fn statistics(&self) -> Result<Statistics, StoreError> {
        let file_bytes = self.medium.bytes().map_err(refused)?.unwrap_or_default();
        self.read(|tx| {
            let count = |table: SealedTable| -> Result<u64, StoreError> {
                tx.open_table(table.definition()).map_err(refused)?.len().map_err(refused)
            };
            let meta = tx.open_table(META).map_err(refused)?;
            Ok(Statistics {
                id: self.store_id(),
                file_bytes,
                schema_version: meta::version(&meta)?,
                program: meta::program(&meta)?,
                migrated_from: meta::migrated_from(&meta)?,
                collections: count(schema::COLLECTIONS)?,
                persons: count(schema::PERSONS)?,
                images: count(schema::IMAGES)?,
                keys: count(schema::KEYS)?,
                events: count(schema::EVENTS)?,
                scrub_owed: meta::scrub_owed(&meta)?,
            })
        })
    }

    fn export(&self, now: UtcTime, out: &mut dyn Write) -> Result<Exported, StoreError> {
        // A failure of `out` is none of the medium's, which goes on.
        let exported = self.read(|tx| match self.copy_out(tx, now, out) {
            Ok(exported) => Ok(Ok(exported)),
            Err(ExportError::Out(error)) => Ok(Err(error)),
            Err(ExportError::Store(error)) => Err(error),
        })?;
        exported.map_err(|error| StoreError::Backup {
            file: String::new(),
            what: "made",
            reason: error.to_string(),
        })
    }
}

enum ExportError {
    Store(StoreError),
    Out(io::Error),
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::Out(error)
    }
}

impl Database {
    /// The same for every copy of a store, and told by no key that belongs to another.
    fn store_id(&self) -> String {
        let id = self.vault.record_id("store", &[]);
        format!("{:08x}", u32::from_be_bytes([id[0], id[1], id[2], id[3]]))
    }

    /// Everything as one read transaction sees it. The note that a scrub is owed stays behind: what
    /// it speaks of is not copied.
    fn copy_out(
        &self,
        tx: &ReadTransaction,
        now: UtcTime,
        out: &mut dyn Write,
    ) -> Result<Exported, ExportError> {
        let meta = tx.open_table(META).map_err(refused)?;
        let schema_version = meta::version(&meta)?;
        let program = meta::OWN_VERSION.to_string();
        let head = Head { schema_version, created: now, program };
        let mut writer = ArchiveWriter::begin(out, &head, SEALED_TABLES.len() as u32 + 1)?;
        let owed = u64::from(meta::scrub_owed(&meta)?);
        let mut records = meta.len().map_err(refused)? - owed;
        writer.table(schema::META_NAME, records)?;
        for entry in meta.iter().map_err(refused)? {
            let (name, value) = entry.map_err(refused)?;
            if name.value() != META_SCRUB_OWED {
                writer.record(name.value().as_bytes(), value.value())?;
            }
        }
        for table in SEALED_TABLES {
            let sealed = tx.open_table(table.definition()).map_err(refused)?;
            let counted = sealed.len().map_err(refused)?;
            writer.table(table.name(), counted)?;
            let mut copied = 0;
            for entry in sealed.iter().map_err(refused)? {
                let (key, value) = entry.map_err(refused)?;
                // A damaged record would be signed into every backup from now on, while rotation
                // removes the ones that hold it sound.
                let place = Place { table: table.name(), id: key.value(), version: schema_version };
                let opened = self.vault.open(&place, value.value());
                opened.map_err(|error| damaged(table, &error))?;
                writer.record(key.value(), value.value())?;
                copied += 1;
            }
            if copied != counted {
                let reason =
                    format!("the table `{}` has other entries than it counts", table.name());
                return Err(StoreError::Corrupt { reason }.into());
            }
            records += copied;
        }
        let bytes = writer.end(|sha256| self.vault.sign_backup(sha256))?;
        Ok(Exported { bytes, records, schema_version })
    }
}
