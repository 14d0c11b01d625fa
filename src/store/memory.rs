//! A store in memory that fails on demand: test support for whatever stands on a [`Store`].
//!
//! It keeps the contract of the trait (one change is all or nothing, changes may be repeated,
//! sequence numbers are never given twice) and forgets everything when it is dropped.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::access::event::Event;
use crate::gallery::names::{CollectionName, PersonId};
use crate::gallery::person::Person;
use crate::store::{
    AuditEntry, AuditLog, Change, Contents, EventBounds, ImageChange, KeyRecord, ScrubReport,
    Setting, Store, StoreError,
};

/// Most events of a [`MemoryStore`] unless told otherwise.
pub const EVENTS_MAX_DEFAULT: usize = 100_000;

/// The store in memory.
pub struct MemoryStore {
    state: Mutex<State>,
    events_max: usize,
}

#[derive(Default)]
struct State {
    collections: BTreeMap<CollectionName, BTreeMap<PersonId, Entry>>,
    keys: BTreeMap<String, KeyRecord>,
    events: BTreeMap<u64, Event>,
    newest_seq: u64,
    dropped: u64,
    audit: Vec<AuditEntry>,
    settings: HashMap<Setting, Vec<u8>>,
    scrub_owed: bool,
    scrubs: usize,
    commits: usize,
    failures_left: usize,
}

struct Entry {
    person: Arc<Person>,
    image: Option<Arc<[u8]>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_events_max(EVENTS_MAX_DEFAULT)
    }

    /// An empty store whose log holds at most `events_max` events, at least 1.
    pub fn with_events_max(events_max: usize) -> Self {
        Self { state: Mutex::default(), events_max: events_max.max(1) }
    }

    /// Lets the next `count` writes (commits, appended events, scrubs) fail with
    /// [`StoreError::Io`] and change nothing. Reading goes on.
    pub fn fail_next(&self, count: usize) {
        self.state().failures_left = count;
    }

    /// How many changes were committed.
    pub fn commits(&self) -> usize {
        self.state().commits
    }

    /// How many scrubs had something to do.
    pub fn scrubs(&self) -> usize {
        self.state().scrubs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere leaves whole changes behind, never half of one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.state();
        if state.failures_left > 0 {
            state.failures_left -= 1;
            return Err(StoreError::Io { reason: "a failure that the test asked for".to_string() });
        }
        Ok(state)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl AuditLog for MemoryStore {
    fn append_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut state = self.writing()?;
        for entry in entries {
            let seq = state.audit.last().map_or(1, |last| last.seq + 1);
            state.audit.push(AuditEntry { seq, ..entry.clone() });
        }
        Ok(())
    }

    fn audit(&self, after_seq: u64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let state = self.state();
        let after = state.audit.iter().filter(|entry| entry.seq > after_seq);
        Ok(after.take(limit).cloned().collect())
    }

    fn audit_bounds(&self) -> Result<EventBounds, StoreError> {
        let newest_seq = self.state().audit.len() as u64;
        Ok(EventBounds { oldest_seq: 1, newest_seq, dropped: 0 })
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Contents, StoreError> {
        let state = self.state();
        let people = |entries: &BTreeMap<PersonId, Entry>| {
            entries.values().map(|entry| Arc::clone(&entry.person)).collect()
        };
        Ok(Contents {
            collections: state
                .collections
                .iter()
                .map(|(name, entries)| (name.clone(), people(entries)))
                .collect(),
            keys: state.keys.values().cloned().collect(),
        })
    }

    fn commit(&self, change: &Change) -> Result<(), StoreError> {
        let mut state = self.writing()?;
        state.apply(change)?;
        state.commits += 1;
        Ok(())
    }

    fn image(
        &self,
        collection: &CollectionName,
        id: &PersonId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.state();
        let entry = state.collections.get(collection).and_then(|entries| entries.get(id));
        Ok(entry.and_then(|entry| entry.image.as_ref()).map(|image| image.to_vec()))
    }

    fn append_event(&self, event: &Event) -> Result<u64, StoreError> {
        let mut state = self.writing()?;
        state.newest_seq += 1;
        let seq = state.newest_seq;
        state.events.insert(seq, Event { seq, ..event.clone() });
        while state.events.len() > self.events_max {
            state.events.pop_first();
            state.dropped += 1;
        }
        Ok(seq)
    }

    fn events(&self, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let from = after_seq.saturating_add(1);
        Ok(self.state().events.range(from..).take(limit).map(|(_, event)| event.clone()).collect())
    }

    fn event(&self, id: &str) -> Result<Option<Event>, StoreError> {
        Ok(self.state().events.values().rev().find(|event| event.id == id).cloned())
    }

    fn setting(&self, setting: Setting) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().settings.get(&setting).cloned())
    }

    fn event_bounds(&self) -> Result<EventBounds, StoreError> {
        let state = self.state();
        let newest_seq = state.newest_seq;
        let oldest_seq = state.events.keys().next().copied().unwrap_or(newest_seq + 1);
        Ok(EventBounds { oldest_seq, newest_seq, dropped: state.dropped })
    }

    fn scrub(&self) -> Result<ScrubReport, StoreError> {
        let mut state = self.writing()?;
        let owed = std::mem::take(&mut state.scrub_owed);
        if owed {
            state.scrubs += 1;
        }
        Ok(ScrubReport { owed, ..ScrubReport::default() })
    }
}

impl State {
    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::CreateCollection { name } => {
                self.collections.entry(name.clone()).or_default();
            }
            Change::DeleteCollection { name } => {
                self.scrub_owed |= self.collections.remove(name).is_some();
            }
            Change::PutPersons { collection, persons } => {
                let entries = self.collections.get_mut(collection).ok_or_else(|| {
                    let reason = format!("the collection {collection} is not in the store");
                    StoreError::Corrupt { reason }
                })?;
                for (person, change) in persons {
                    let old = entries.remove(&person.id);
                    self.scrub_owed |= old.is_some();
                    let image = match change {
                        ImageChange::Keep => old.and_then(|entry| entry.image),
                        ImageChange::Remove => None,
                        ImageChange::Replace(image) => Some(Arc::clone(image)),
                    };
                    let entry = Entry { person: Arc::clone(person), image };
                    entries.insert(person.id.clone(), entry);
                }
            }
            Change::DeletePerson { collection, id } => {
                let entries = self.collections.get_mut(collection);
                let removed = entries.and_then(|entries| entries.remove(id));
                self.scrub_owed |= removed.is_some();
            }
            Change::PutKey(record) => {
                let old = self.keys.insert(record.id.clone(), record.clone());
                self.scrub_owed |= old.is_some();
            }
            Change::DeleteKey { id } => self.scrub_owed |= self.keys.remove(id).is_some(),
            Change::PutSetting { setting, value } => {
                self.settings.insert(*setting, value.clone());
            }
            Change::DropEvents { up_to } => {
                while let Some(entry) = self.events.first_entry()
                    && entry.key() <= up_to
                {
                    entry.remove();
                    self.dropped += 1;
                    self.scrub_owed = true;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_on_demand_change_nothing() {
        let store = MemoryStore::new();
        let name = CollectionName::new("staff").unwrap();
        store.fail_next(1);
        let create = Change::CreateCollection { name };
        assert!(matches!(store.commit(&create), Err(StoreError::Io { .. })));
        assert!(store.load().unwrap().collections.is_empty());
        store.commit(&create).unwrap();
        assert_eq!(store.load().unwrap().collections.len(), 1);
        assert_eq!(store.commits(), 1);
    }

    #[test]
    fn only_a_deletion_owes_a_scrub() {
        let store = MemoryStore::new();
        let name = CollectionName::new("staff").unwrap();
        store.commit(&Change::CreateCollection { name: name.clone() }).unwrap();
        assert!(!store.scrub().unwrap().owed);
        store.commit(&Change::DeleteCollection { name }).unwrap();
        assert!(store.scrub().unwrap().owed);
        assert!(!store.scrub().unwrap().owed);
        assert_eq!(store.scrubs(), 1);
    }
}
