//! Power cuts at any operation, against a simple model: every acknowledged change is there, the one
//! that was under way is there whole or not at all.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::store::database::Database;
use crate::store::database::tests::disk::{Disk, Survival};
use crate::store::database::tests::{create, event, id, name, person, picture};
use crate::store::memory::MemoryStore;
use crate::store::{Archive, Change, ImageChange, Store, StoreError};

const EVENTS_MAX: u64 = 3;
const COLLECTIONS: [&str; 2] = ["staff", "visitors"];

#[derive(Clone, Debug)]
enum Action {
    Create(usize),
    Delete(usize),
    Put(usize, Vec<(u8, Option<u16>)>),
    Remove(usize, u8),
    Event,
    Scrub,
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    let collection = 0..COLLECTIONS.len();
    let persons = prop::collection::vec((0_u8..6, prop::option::of(1_u16..12_000)), 1..5);
    prop_oneof![
        2 => collection.clone().prop_map(Action::Create),
        1 => collection.clone().prop_map(Action::Delete),
        6 => (collection.clone(), persons).prop_map(|(at, persons)| Action::Put(at, persons)),
        3 => (collection, 0_u8..6).prop_map(|(at, person)| Action::Remove(at, person)),
        2 => Just(Action::Event),
        1 => Just(Action::Scrub),
        1 => Just(Action::Restart),
    ]
}

fn survival() -> impl Strategy<Value = Survival> {
    prop_oneof![Just(Survival::Whole), Just(Survival::Torn), Just(Survival::Lost)]
}

/// Collections, with the length of each person's picture; and the number of events.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    collections: BTreeMap<String, BTreeMap<String, Option<usize>>>,
    events: u64,
}

impl Model {
    /// The change that an action means now, if it means one.
    fn apply(&mut self, action: &Action) -> Option<Change> {
        match action {
            Action::Create(at) => {
                self.collections.entry(COLLECTIONS[*at].to_string()).or_default();
                Some(create(COLLECTIONS[*at]))
            }
            Action::Delete(at) => {
                self.collections.remove(COLLECTIONS[*at]);
                Some(Change::DeleteCollection { name: name(COLLECTIONS[*at]) })
            }
            Action::Put(at, persons) => {
                let entries = self.collections.get_mut(COLLECTIONS[*at])?;
                let mut changes = Vec::new();
                for (number, picture_bytes) in persons {
                    let person = person(&number.to_string(), "Ada");
                    let bytes = picture_bytes.map(usize::from);
                    let previous = entries.get(person.id.as_str()).copied().flatten();
                    entries.insert(person.id.to_string(), bytes.or(previous));
                    let image = bytes.map_or(ImageChange::Keep, |n| picture(&vec![*number; n]));
                    changes.push((person, image));
                }
                Some(Change::PutPersons { collection: name(COLLECTIONS[*at]), persons: changes })
            }
            Action::Remove(at, number) => {
                let entries = self.collections.get_mut(COLLECTIONS[*at])?;
                entries.remove(&number.to_string());
                let id = id(&number.to_string());
                Some(Change::DeletePerson { collection: name(COLLECTIONS[*at]), id })
            }
            Action::Event => {
                self.events += 1;
                None
            }
            Action::Scrub | Action::Restart => None,
        }
    }

    /// What a store holds; whatever it holds is whole.
    fn read(store: &Database) -> Result<Self, StoreError> {
        let mut model = Self::default();
        for (collection, persons) in store.load()?.collections {
            let entries = model.collections.entry(collection.to_string()).or_default();
            for stored in persons {
                assert_eq!(stored, person(stored.id.as_str(), "Ada"));
                let image = store.image(&collection, &stored.id)?;
                let byte: u8 = stored.id.as_str().parse().unwrap();
                assert!(image.iter().flatten().all(|b| *b == byte), "another's picture");
                entries.insert(stored.id.to_string(), image.map(|image| image.len()));
            }
        }
        let images: usize = model.collections.values().map(|e| e.values().flatten().count()).sum();
        assert_eq!(store.statistics()?.images, images as u64, "a picture without a person");
        let bounds = store.event_bounds()?;
        let held: Vec<u64> = store.events(0, 100)?.iter().map(|event| event.seq).collect();
        assert_eq!(held, (bounds.oldest_seq..=bounds.newest_seq).collect::<Vec<_>>());
        assert_eq!(held.len() as u64, bounds.newest_seq.min(EVENTS_MAX));
        assert_eq!(bounds.dropped + held.len() as u64, bounds.newest_seq);
        model.events = bounds.newest_seq;
        Ok(model)
    }
}

fn perform(
    store: &mut Option<Database>,
    disk: &Disk,
    action: &Action,
    change: Option<&Change>,
) -> Result<(), StoreError> {
    if matches!(action, Action::Restart) || store.is_none() {
        drop(store.take());
        *store = Some(disk.open_store(EVENTS_MAX)?);
    }
    let open = store.as_ref().expect("just opened");
    match (action, change) {
        (_, Some(change)) => open.commit(change),
        (Action::Event, _) => open.append_event(&event(1)).map(drop),
        (Action::Scrub, _) => open.scrub().map(drop),
        _ => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_power_cut_loses_nothing_that_was_acknowledged(
        actions in prop::collection::vec(action(), 1..25),
        cut_after in prop_oneof![3 => 20_u64..200, 1 => 0_u64..700],
        survivals in prop::collection::vec(survival(), 1..40),
    ) {
        let disk = Disk::default();
        disk.fail(cut_after, u64::MAX);
        let (mut acknowledged, mut under_way) = (Model::default(), None);
        let mut store = None;
        for action in &actions {
            let mut after = acknowledged.clone();
            let change = after.apply(action);
            if let Err(error) = perform(&mut store, &disk, action, change.as_ref()) {
                prop_assert!(matches!(error, StoreError::Io { .. }), "{}", error);
                under_way = Some(after);
                break;
            }
            acknowledged = after;
        }
        let mut survivals = survivals.into_iter().cycle();
        let reopened = disk.after_power_cut(|| survivals.next().expect("a cycle never ends"));
        drop(store);
        let store = reopened.open_store(EVENTS_MAX);
        prop_assert!(store.is_ok(), "{:?}", store.err());
        let found = Model::read(&store.unwrap()).unwrap();
        prop_assert!(
            found == acknowledged || Some(&found) == under_way.as_ref(),
            "found {:?}\nacknowledged {:?}\nunder way {:?}", found, acknowledged, under_way
        );
    }
    #[test]
    fn the_store_in_memory_keeps_the_same_contract(
        actions in prop::collection::vec(action(), 1..40),
    ) {
        let disk = Disk::default();
        let memory = MemoryStore::with_events_max(EVENTS_MAX as usize);
        let (mut model, mut store) = (Model::default(), None);
        for action in &actions {
            let change = model.apply(action);
            perform(&mut store, &disk, action, change.as_ref()).unwrap();
            match (action, &change) {
                (_, Some(change)) => memory.commit(change).unwrap(),
                (Action::Event, _) => assert!(memory.append_event(&event(1)).is_ok()),
                (Action::Scrub | Action::Restart, _) => assert!(memory.scrub().is_ok()),
                _ => {}
            }
        }
        let store = store.expect("every action opens it");
        prop_assert_eq!(&Model::read(&store).unwrap(), &model);
        prop_assert_eq!(store.load().unwrap().collections, memory.load().unwrap().collections);
        prop_assert_eq!(store.events(0, 9).unwrap(), memory.events(0, 9).unwrap());
        prop_assert_eq!(store.event_bounds().unwrap(), memory.event_bounds().unwrap());
        prop_assert_eq!(store.scrub().unwrap().owed, memory.scrub().unwrap().owed);
    }
}
