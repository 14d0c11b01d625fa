//! A store that is measured: how long commits take and how often the store fails, for `/metrics`.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use crate::access::event::Event;
use crate::clock::UtcTime;
use crate::gallery::names::{CollectionName, PersonId};
use crate::store::{
    Archive, AuditEntry, AuditLog, Change, Contents, EventBounds, Exported, ScrubReport, Setting,
    Statistics, Store, StoreError,
};
use crate::telemetry::Metrics;

/// Hands everything on to a store and counts.
pub struct MeteredStore<S> {
    store: S,
    metrics: Arc<Metrics>,
}

impl<S> MeteredStore<S> {
    /// Counts what `store` does.
    pub fn new(store: S, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    fn counted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|_| self.metrics.store_error())
    }

    fn timed<T>(&self, commit: impl FnOnce(&S) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let start = Instant::now();
        let result = commit(&self.store);
        if result.is_ok() {
            self.metrics.store_commit(start.elapsed());
        }
        self.counted(result)
    }
}

impl<S: AuditLog> AuditLog for MeteredStore<S> {
    fn append_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        self.timed(|store| store.append_audit(entries))
    }

    fn audit(&self, after_seq: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.counted(self.store.audit(after_seq, limit))
    }

    fn audit_bounds(&self) -> Result<EventBounds, StoreError> {
        self.counted(self.store.audit_bounds())
    }
}

impl<S: Store> Store for MeteredStore<S> {
    fn load(&self) -> Result<Contents, StoreError> {
        self.counted(self.store.load())
    }

    fn commit(&self, change: &Change) -> Result<(), StoreError> {
        self.timed(|store| store.commit(change))
    }

    fn image(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.counted(self.store.image(collection, id))
    }

    fn append_event(&self, event: &Event) -> Result<u64, StoreError> {
        self.timed(|store| store.append_event(event))
    }

    fn events(&self, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.counted(self.store.events(after_seq, limit))
    }

    fn event(&self, id: &str) -> Result<Option<Event>, StoreError> {
        self.counted(self.store.event(id))
    }

    fn setting(&self, setting: Setting) -> Result<Option<Vec<u8>>, StoreError> {
        self.counted(self.store.setting(setting))
    }

    fn event_bounds(&self) -> Result<EventBounds, StoreError> {
        self.counted(self.store.event_bounds())
    }

    fn scrub(&self) -> Result<ScrubReport, StoreError> {
        self.counted(self.store.scrub())
    }
}

impl<S: Archive> Archive for MeteredStore<S> {
    fn statistics(&self) -> Result<Statistics, StoreError> {
        self.counted(self.store.statistics())
    }

    fn export(&self, now: UtcTime, out: &mut dyn Write) -> Result<Exported, StoreError> {
        self.counted(self.store.export(now, out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn commits_are_timed_and_failures_counted() {
        let metrics = Arc::new(Metrics::new("0"));
        let store = MeteredStore::new(MemoryStore::new(), Arc::clone(&metrics));
        let create = Change::CreateCollection { name: CollectionName::new("staff").unwrap() };
        store.commit(&create).unwrap();
        store.store.fail_next(1);
        store.commit(&create).unwrap_err();
        let text = metrics.render();
        assert!(text.contains("facelatch_store_commit_seconds_count 1"), "{text}");
        assert!(text.contains("facelatch_store_errors_total 1"), "{text}");
    }
}
