//! The audit log: a ring of sealed entries, numbered without gaps and never twice.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use crate::store::database::{Database, damaged, meta, not_sealed, refused};
use crate::store::schema::{self, AUDIT, META, META_AUDIT_DROPPED, META_AUDIT_NEWEST};
use crate::store::{AUDIT_ENTRIES_MAX, AuditEntry, AuditLog, EventBounds, StoreError};

impl AuditLog for Database {
    fn append_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.write(|tx| self.append_entries(tx, entries))
    }

    fn audit(&self, after_seq: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(|tx| self.list_entries(tx, after_seq, limit))
    }

    fn audit_bounds(&self) -> Result<EventBounds, StoreError> {
        self.read(|tx| {
            let entries = tx.open_table(AUDIT.definition()).map_err(refused)?;
            let meta = tx.open_table(META).map_err(refused)?;
            let newest_seq = meta::counter(&meta, META_AUDIT_NEWEST)?;
            let oldest_seq = match entries.first().map_err(refused)? {
                Some((key, _)) => {
                    schema::event_seq(key.value()).map_err(|error| damaged(AUDIT, &error))?
                }
                None => newest_seq + 1,
            };
            let dropped = meta::counter(&meta, META_AUDIT_DROPPED)?;
            Ok(EventBounds { oldest_seq, newest_seq, dropped })
        })
    }
}

impl Database {
    /// As with events, what is dropped here owes no scrub: a full log would owe one for every entry.
    fn append_entries(
        &self,
        tx: &WriteTransaction,
        entries: &[AuditEntry],
    ) -> Result<(), StoreError> {
        let mut meta = tx.open_table(META).map_err(refused)?;
        let mut table = tx.open_table(AUDIT.definition()).map_err(refused)?;
        let mut seq = meta::counter(&meta, META_AUDIT_NEWEST)?;
        for entry in entries {
            seq += 1;
            let numbered = AuditEntry { seq, ..entry.clone() };
            let plain =
                schema::encode_audit(&numbered).map_err(|error| not_sealed(AUDIT, &error))?;
            let key = schema::event_key(seq);
            let sealed = self.seal(AUDIT, &key, &plain)?;
            table.insert(key.as_slice(), sealed.as_slice()).map_err(refused)?;
        }
        let mut dropped = meta::counter(&meta, META_AUDIT_DROPPED)?;
        while table.len().map_err(refused)? > AUDIT_ENTRIES_MAX {
            table.pop_first().map_err(refused)?;
            dropped += 1;
        }
        meta::set_counter(&mut meta, META_AUDIT_DROPPED, dropped)?;
        meta::set_counter(&mut meta, META_AUDIT_NEWEST, seq)
    }

    fn list_entries(
        &self,
        tx: &ReadTransaction,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let Some(first) = after_seq.checked_add(1) else { return Ok(Vec::new()) };
        let entries = tx.open_table(AUDIT.definition()).map_err(refused)?;
        let range = entries.range(schema::event_key(first).as_slice()..).map_err(refused)?;
        let mut listed = Vec::new();
        for entry in range.take(limit) {
            let (key, sealed) = entry.map_err(refused)?;
            let plain = self.unseal(AUDIT, key.value(), sealed.value())?;
            listed.push(schema::decode_audit(&plain).map_err(|error| damaged(AUDIT, &error))?);
        }
        Ok(listed)
    }
}
