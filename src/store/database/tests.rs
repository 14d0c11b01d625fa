//! The store on real files: first start, keys, deletion, events, damage.

mod audit;
mod backups;
mod damage;
mod disk;
mod failures;
mod finding;
mod migration;
mod power;
mod privacy;
mod salvage;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::access::event::{Event, EventPerson, EventType};
use crate::clock::UtcTime;
use crate::config::StoreConfig;
use crate::face::eyes::EyeRatio;
use crate::face::template::Template;
use crate::gallery::names::{CollectionName, PersonId};
use crate::gallery::person::{EmbeddingModelId, FaceStorageType, Person, Reference};
use crate::store::database::medium::{DATABASE_FILE_NAME, FRESH_FILE_NAME};
use crate::store::database::{Database, Schema, refused};
use crate::store::keyfile::KEY_FILE_NAME;
use crate::store::schema::{META, META_CANARY, META_KEY_CHECK, META_VERSION};
use crate::store::schema::{MIGRATIONS, SCHEMA_VERSION};
use crate::store::{
    Archive, Change, EventBounds, ImageChange, KeyRecord, Scope, Store, StoreError,
};

/// What this program writes and reads.
const PRESENT: Schema = Schema { version: SCHEMA_VERSION, migrations: MIGRATIONS };

fn config(dir: &Path) -> StoreConfig {
    StoreConfig { dir: dir.join("state"), key_file: None, events_max: 5 }
}

fn open(dir: &Path) -> Database {
    Database::open(&config(dir)).unwrap()
}

fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

fn id(text: &str) -> PersonId {
    PersonId::new(text).unwrap()
}

/// A person whose template is a unit vector to the last bit.
fn person(id_text: &str, full_name: &str) -> Arc<Person> {
    let mut embedding = [0.0; 64];
    embedding[id_text.len() % 64] = 1.0;
    let template = Template::from_embedding(&embedding).unwrap();
    Arc::new(Person {
        id: id(id_text),
        name: full_name.to_string(),
        metadata: BTreeMap::from([("badge".to_string(), "PLAINTEXT-BADGE".to_string())]),
        storage: FaceStorageType::StoreThumbnails,
        references: vec![Reference { template, model: EmbeddingModelId("m1".to_string()) }],
        eye_ratio: EyeRatio::new(0.25),
        created: UtcTime::from_millis(1_000),
        updated: UtcTime::from_millis(2_000),
    })
}

fn create(collection: &str) -> Change {
    Change::CreateCollection { name: name(collection) }
}

fn put(collection: &str, person: &Arc<Person>, image: ImageChange) -> Change {
    let persons = vec![(Arc::clone(person), image)];
    Change::PutPersons { collection: name(collection), persons }
}

fn picture(bytes: &[u8]) -> ImageChange {
    ImageChange::Replace(bytes.into())
}

fn key_record(id: &str) -> KeyRecord {
    KeyRecord {
        id: id.to_string(),
        name: "PLAINTEXT-KEY-NAME".to_string(),
        sha256: [7; 32],
        scopes: vec![Scope::Search, Scope::Admin],
        created: UtcTime::from_millis(3),
    }
}

fn event(decided_millis: i64) -> Event {
    Event {
        latency_ms: Some(80),
        camera: Some("front".to_string()),
        collection: Some("staff".to_string()),
        person: Some(EventPerson {
            id: "7".to_string(),
            name: "PLAINTEXT-EVENT-NAME".to_string(),
            metadata: BTreeMap::new(),
        }),
        similarity_score: Some(0.875),
        method: vec!["face".to_string()],
        frames: 3,
        ..Event::new(
            EventType::Match,
            format!("event {decided_millis}"),
            "boot",
            UtcTime::from_millis(decided_millis),
        )
    }
}

#[test]
fn everything_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (ada, bob) = (person("7", "Ada"), person("12", "Bob"));
    store.commit(&create("staff")).unwrap();
    store.commit(&create("empty")).unwrap();
    store.commit(&put("staff", &ada, picture(b"jpeg of ada"))).unwrap();
    store.commit(&put("staff", &bob, ImageChange::Keep)).unwrap();
    store.commit(&Change::PutKey(key_record("k1"))).unwrap();
    assert_eq!(store.append_event(&event(1)).unwrap(), 1);
    drop(store);

    let store = open(dir.path());
    let contents = store.load().unwrap();
    assert_eq!(
        contents.collections,
        [(name("empty"), vec![]), (name("staff"), vec![Arc::clone(&bob), Arc::clone(&ada)])]
    );
    assert_eq!(contents.keys, [key_record("k1")]);
    assert_eq!(store.image(&name("staff"), &ada.id).unwrap().unwrap(), b"jpeg of ada");
    assert_eq!(store.image(&name("staff"), &bob.id).unwrap(), None);
    assert_eq!(store.image(&name("other"), &ada.id).unwrap(), None);
    assert_eq!(store.events(0, 10).unwrap(), [Event { seq: 1, ..event(1) }]);
    let statistics = store.statistics().unwrap();
    assert_eq!((statistics.collections, statistics.persons), (2, 2));
    assert_eq!((statistics.images, statistics.keys, statistics.events), (1, 1, 1));
    assert!(statistics.file_bytes > 0 && !statistics.scrub_owed);
}

#[test]
fn pictures_are_kept_removed_and_replaced_with_the_person() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ada = person("7", "Ada");
    let image = || store.image(&name("staff"), &ada.id).unwrap();
    store.commit(&create("staff")).unwrap();
    let cases: [(ImageChange, Option<&[u8]>); 5] = [
        (picture(b"one"), Some(b"one")),
        (ImageChange::Keep, Some(b"one")),
        (picture(b"two"), Some(b"two")),
        (ImageChange::Remove, None),
        (ImageChange::Keep, None),
    ];
    for (change, expected) in cases {
        store.commit(&put("staff", &ada, change)).unwrap();
        assert_eq!(image().as_deref(), expected);
    }
    store.commit(&put("staff", &ada, picture(b"three"))).unwrap();
    let delete = Change::DeletePerson { collection: name("staff"), id: ada.id.clone() };
    store.commit(&delete).unwrap();
    assert_eq!(image(), None);
    store.commit(&put("staff", &ada, ImageChange::Keep)).unwrap();
    assert_eq!(image(), None, "the picture of a deleted person stays deleted");
}

#[test]
fn a_deleted_collection_takes_its_people_along_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for collection in ["one", "two"] {
        store.commit(&create(collection)).unwrap();
        for number in 0..20 {
            let person = person(&format!("person {number}"), collection);
            store.commit(&put(collection, &person, picture(b"jpeg"))).unwrap();
        }
    }
    store.commit(&Change::DeleteCollection { name: name("one") }).unwrap();
    let contents = store.load().unwrap();
    assert_eq!(contents.collections.len(), 1);
    assert_eq!(contents.collections[0].1.len(), 20);
    store.commit(&create("one")).unwrap();
    assert_eq!(store.load().unwrap().collections[0], (name("one"), vec![]));
    let statistics = store.statistics().unwrap();
    assert_eq!((statistics.persons, statistics.images), (20, 20));
}

#[test]
fn changes_may_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ada = person("7", "Ada");
    let changes = [
        create("staff"),
        put("staff", &ada, ImageChange::Keep),
        create("staff"),
        Change::DeletePerson { collection: name("staff"), id: id("nobody") },
        Change::DeletePerson { collection: name("nowhere"), id: id("nobody") },
        Change::DeleteCollection { name: name("nowhere") },
        Change::DeleteKey { id: "none".to_string() },
    ];
    for change in &changes {
        store.commit(change).unwrap();
    }
    assert_eq!(store.load().unwrap().collections, [(name("staff"), vec![Arc::clone(&ada)])]);
    assert!(!store.statistics().unwrap().scrub_owed, "nothing was deleted");
    let refused = store.commit(&put("nowhere", &ada, ImageChange::Keep)).unwrap_err();
    assert!(refused.to_string().contains("nowhere"), "{refused}");
}

#[test]
fn a_batch_with_one_person_that_cannot_be_stored_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&create("staff")).unwrap();
    let faceless = Person { references: vec![], ..(*person("8", "Bob")).clone() };
    let persons =
        vec![(person("7", "Ada"), picture(b"jpeg")), (Arc::new(faceless), ImageChange::Keep)];
    store.commit(&Change::PutPersons { collection: name("staff"), persons }).unwrap_err();
    assert_eq!(store.load().unwrap().collections, [(name("staff"), vec![])]);
    assert_eq!(store.statistics().unwrap().images, 0);
}

#[test]
fn the_event_log_drops_the_oldest_and_never_gives_a_number_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(
        store.event_bounds().unwrap(),
        EventBounds { oldest_seq: 1, newest_seq: 0, dropped: 0 }
    );
    for expected in 1..=8 {
        assert_eq!(store.append_event(&event(expected as i64)).unwrap(), expected);
    }
    let seqs = |store: &Database, after, limit| -> Vec<u64> {
        store.events(after, limit).unwrap().iter().map(|event| event.seq).collect()
    };
    assert_eq!(seqs(&store, 0, 100), [4, 5, 6, 7, 8]);
    assert_eq!(seqs(&store, 5, 2), [6, 7]);
    assert!(seqs(&store, 8, 100).is_empty());
    assert!(seqs(&store, u64::MAX, 100).is_empty());
    let bounds = EventBounds { oldest_seq: 4, newest_seq: 8, dropped: 3 };
    assert_eq!(store.event_bounds().unwrap(), bounds);
    assert!(!store.statistics().unwrap().scrub_owed, "a full log owes nothing for each event");

    store.commit(&Change::DropEvents { up_to: 5 }).unwrap();
    assert_eq!(seqs(&store, 0, 100), [6, 7, 8]);
    assert!(store.statistics().unwrap().scrub_owed);
    store.commit(&Change::DropEvents { up_to: 100 }).unwrap();
    drop(store);

    let store = open(dir.path());
    let bounds = EventBounds { oldest_seq: 9, newest_seq: 8, dropped: 8 };
    assert_eq!(store.event_bounds().unwrap(), bounds);
    assert_eq!(store.append_event(&event(9)).unwrap(), 9);
}

#[test]
fn a_smaller_log_is_trimmed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for millis in 0..5 {
        store.append_event(&event(millis)).unwrap();
    }
    drop(store);
    let store = Database::open(&StoreConfig { events_max: 0, ..config(dir.path()) }).unwrap();
    let bounds = EventBounds { oldest_seq: 5, newest_seq: 5, dropped: 4 };
    assert_eq!(store.event_bounds().unwrap(), bounds, "the least log holds one event");
    assert!(!store.statistics().unwrap().scrub_owed);
}

#[test]
fn a_second_process_is_kept_out_also_after_a_scrub() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let in_use = |dir: &Path| {
        let error = Database::open(&config(dir)).err().unwrap();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(DATABASE_FILE_NAME));
    };
    in_use(dir.path());
    store.commit(&create("staff")).unwrap();
    store.commit(&Change::DeleteCollection { name: name("staff") }).unwrap();
    assert!(store.scrub().unwrap().owed);
    in_use(dir.path());
    drop(store);
    open(dir.path());
}

#[test]
fn a_wrong_key_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&create("staff")).unwrap();
    drop(store);
    let state = dir.path().join("state");
    let before = std::fs::read(state.join(DATABASE_FILE_NAME)).unwrap();
    let right = std::fs::read(state.join(KEY_FILE_NAME)).unwrap();
    let mut wrong = right.clone();
    wrong[0] = if wrong[0] == b'0' { b'1' } else { b'0' };
    std::fs::write(state.join(KEY_FILE_NAME), wrong).unwrap();
    let error = Database::open(&config(dir.path())).err().unwrap();
    assert!(matches!(error, StoreError::WrongKey { .. }), "{error}");
    assert!(error.to_string().contains(KEY_FILE_NAME), "{error}");
    let after = std::fs::read(state.join(DATABASE_FILE_NAME)).unwrap();
    assert!(before == after, "not a byte has changed");
    std::fs::write(state.join(KEY_FILE_NAME), right).unwrap();
    assert_eq!(open(dir.path()).load().unwrap().collections.len(), 1);
}

#[test]
fn a_lost_key_file_is_refused_and_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let key = dir.path().join("state").join(KEY_FILE_NAME);
    std::fs::remove_file(&key).unwrap();
    let error = Database::open(&config(dir.path())).err().unwrap();
    assert!(matches!(error, StoreError::Key { .. }), "{error}");
    assert!(!key.exists());
}

/// Writes into the open part of a closed store.
fn tamper(dir: &Path, entry: &'static str, value: Option<&[u8]>) {
    let file = dir.join("state").join(DATABASE_FILE_NAME);
    let database = redb::Database::open(file).unwrap();
    let tx = database.begin_write().unwrap();
    let mut meta = tx.open_table(META).unwrap();
    match value {
        Some(value) => meta.insert(entry, value).map(drop).map_err(refused).unwrap(),
        None => meta.remove(entry).map(drop).unwrap(),
    }
    drop(meta);
    tx.commit().unwrap();
}

#[test]
fn a_damaged_witness_is_damage_and_no_wrong_key() {
    let cases: [(&str, Option<&[u8]>); 5] = [
        (META_CANARY, Some(b"short")),
        (META_CANARY, None),
        (META_KEY_CHECK, Some(b"otherkey")),
        (META_VERSION, Some(b"1")),
        (META_VERSION, None),
    ];
    for (entry, value) in cases {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        tamper(dir.path(), entry, value);
        let error = Database::open(&config(dir.path())).err().unwrap();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{entry}: {error}");
        assert!(error.to_string().contains(entry), "{error}");
    }
}

#[test]
fn a_newer_or_impossible_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    tamper(dir.path(), META_VERSION, Some(&99_u32.to_le_bytes()));
    let file = dir.path().join("state").join(DATABASE_FILE_NAME);
    let before = std::fs::read(&file).unwrap();
    let error = Database::open(&config(dir.path())).err().unwrap();
    assert!(before == std::fs::read(&file).unwrap(), "not a byte has changed");
    let too_new = matches!(error, StoreError::TooNew { found: 99, supported: SCHEMA_VERSION, .. });
    assert!(too_new, "{error}");
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state"), "a file is in the way").unwrap();
    let error = Database::open(&config(dir.path())).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("state"), "{error}");
}

#[test]
fn leftovers_of_an_interrupted_scrub_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&create("staff")).unwrap();
    drop(store);
    let leftover = dir.path().join("state").join(FRESH_FILE_NAME);
    std::fs::write(&leftover, "half a database").unwrap();
    assert_eq!(open(dir.path()).load().unwrap().collections.len(), 1);
    assert!(!leftover.exists());
}
