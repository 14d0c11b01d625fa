//! Removes from the file what deletions left behind.
//!
//! redb is copy-on-write: a deletion makes pages free and leaves their bytes, until some later
//! change happens to need the page. `compact` moves live pages to the front and gives the rest
//! back, but does not promise to write over what stays. So a scrub copies the live records, sealed
//! as they are, into a fresh file that never held anything else, synchronises it, and renames it
//! over the old one. A crash at any point leaves one of the two, whole; the fresh one that did not
//! get its place is removed at the next start, and the note that a scrub is owed is still in the
//! old one.
//!
//! What it cannot promise: the blocks of the old file go back to the file system, and flash (SD
//! card, eMMC, SSD) keeps worn copies that no program can reach. What may be found there with the
//! chip in hand is sealed; it stays unreadable for those who do not have the key. Whoever gives
//! the medium away destroys the key file, and keeps it on another medium if that is not enough.

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, WriteTransaction};

use crate::store::database::{Database, builder, durable, guarded, meta, refused};
use crate::store::schema::{META, META_SCRUB_OWED, SEALED_TABLES};
use crate::store::{ScrubReport, StoreError};

impl Database {
    pub(super) fn scrub_if_owed(&self) -> Result<ScrubReport, StoreError> {
        let _writing = self.writing();
        let owed = self.read(|tx| meta::scrub_owed(&tx.open_table(META).map_err(refused)?))?;
        if !owed {
            return Ok(ScrubReport::default());
        }
        let bytes_before = self.bytes()?;
        let copied = self.with_live(|database| self.copy(database));
        let (fresh, records) = copied.inspect_err(|_| {
            // What remains is removed at the next attempt or start.
            let _ = self.medium.discard_fresh();
        })?;
        match self.medium.promote_fresh() {
            Ok(()) => self.replace_live(Some(fresh)),
            Err(error) => {
                // Whether the rename happened is open. Both files are whole; the next call opens
                // the one that has the name.
                let _ = guarded(|| fresh.close().map_err(refused));
                self.replace_live(None);
                return Err(refused(error));
            }
        }
        Ok(ScrubReport { owed, records, bytes_before, bytes_after: self.bytes()? })
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        Ok(self.medium.bytes().map_err(refused)?.unwrap_or_default())
    }

    /// A fresh database with the live records and without the note; durable but for its name.
    fn copy(&self, live: &redb::Database) -> Result<(redb::Database, u64), StoreError> {
        let mut fresh = self.medium.create_fresh(&builder(0)).map_err(refused)?;
        let from = live.begin_read().map_err(refused)?;
        let to = durable(&fresh)?;
        let mut records = 0;
        for table in SEALED_TABLES {
            let from = from.open_table(table.definition()).map_err(refused)?;
            let mut to = to.open_table(table.definition()).map_err(refused)?;
            for entry in from.iter().map_err(refused)? {
                let (key, sealed) = entry.map_err(refused)?;
                to.insert(key.value(), sealed.value()).map_err(refused)?;
                records += 1;
            }
            if to.len().map_err(refused)? != from.len().map_err(refused)? {
                let reason =
                    format!("the table `{}` has other entries than it counts", table.name());
                return Err(StoreError::Corrupt { reason });
            }
        }
        let meta = from.open_table(META).map_err(refused)?;
        copy_meta(&meta, &to)?;
        to.commit().map_err(refused)?;
        // Gives back the room that the copy took ahead.
        fresh.compact().map_err(refused)?;
        Ok((fresh, records))
    }
}

fn copy_meta(from: &impl meta::ReadMeta, to: &WriteTransaction) -> Result<(), StoreError> {
    let mut to = to.open_table(META).map_err(refused)?;
    for entry in from.iter().map_err(refused)? {
        let (name, value) = entry.map_err(refused)?;
        if name.value() != META_SCRUB_OWED {
            to.insert(name.value(), value.value()).map_err(refused)?;
        }
    }
    Ok(())
}
