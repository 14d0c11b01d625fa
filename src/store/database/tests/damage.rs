//! Files that were changed behind the store's back: a clear answer, never a panic, and never a
//! gallery that is not the one that was stored.

use proptest::prelude::*;
use redb::ReadableTable;

use crate::store::database::medium::DATABASE_FILE_NAME;
use crate::store::database::tests::{config, create, event, name, open, person, picture, put};
use crate::store::database::{Database, EVENTS_MIN, guarded};
use crate::store::schema::PERSONS;
use crate::store::{Contents, Store, StoreError};

fn filled(dir: &std::path::Path) -> Contents {
    let store = open(dir);
    store.commit(&create("staff")).unwrap();
    for number in 0..10 {
        let person = person(&format!("{number}"), "Ada");
        store.commit(&put("staff", &person, picture(&[number; 5000]))).unwrap();
    }
    store.append_event(&event(EVENTS_MIN as i64)).unwrap();
    store.load().unwrap()
}

/// Reads everything; answers the contents if nothing complained.
fn read_all(dir: &std::path::Path) -> Result<Contents, StoreError> {
    let store = Database::open(&config(dir))?;
    let contents = store.load()?;
    for (collection, persons) in &contents.collections {
        for person in persons {
            store.image(collection, &person.id)?;
        }
    }
    store.events(0, 100)?;
    Ok(contents)
}

#[test]
fn what_is_no_database_is_refused_with_advice() {
    let zeros = vec![0; 1 << 16];
    let cases: [(&str, &[u8]); 3] = [("empty", b""), ("text", b"hello"), ("zeros", &zeros)];
    for (case, bytes) in cases {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        std::fs::write(config(dir.path()).dir.join(DATABASE_FILE_NAME), bytes).unwrap();
        let error = Database::open(&config(dir.path())).err().unwrap();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{case}: {error:?}");
        assert!(error.to_string().contains("restore a backup"), "{case}: {error}");
    }
}

#[test]
fn a_record_in_the_place_of_another_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let file = config(dir.path()).dir.join(DATABASE_FILE_NAME);
    let database = redb::Database::open(file).unwrap();
    let tx = database.begin_write().unwrap();
    let mut persons = tx.open_table(PERSONS.definition()).unwrap();
    let moved: Vec<(Vec<u8>, Vec<u8>)> = persons
        .iter()
        .unwrap()
        .take(2)
        .map(|entry| entry.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
        .collect::<Result<_, _>>()
        .unwrap();
    persons.insert(moved[0].0.as_slice(), moved[1].1.as_slice()).unwrap();
    drop(persons);
    tx.commit().unwrap();
    drop(database);
    let error = read_all(dir.path()).unwrap_err();
    assert!(error.to_string().contains("persons"), "{error}");
}

#[test]
fn a_panic_of_the_database_is_an_error_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&create("staff")).unwrap();
    let trip = || -> Result<(), StoreError> { panic!("a page that cannot be") };
    let error = store.with_live(|_| trip()).unwrap_err();
    assert!(error.to_string().contains("a page that cannot be"), "{error}");
    assert!(store.live.read().unwrap().is_none(), "the handle is not trusted any more");
    assert_eq!(store.load().unwrap().collections, [(name("staff"), vec![])]);
    assert!(guarded(|| Ok(())).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn flipped_bytes_are_noticed_or_do_not_matter(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..20),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let contents = filled(dir.path());
        let file = config(dir.path()).dir.join(DATABASE_FILE_NAME);
        let mut bytes = std::fs::read(&file).unwrap();
        for (at, mask) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()));
        }
        std::fs::write(&file, bytes).unwrap();
        match read_all(dir.path()) {
            Ok(read) => prop_assert_eq!(read.collections, contents.collections),
            Err(StoreError::Corrupt { .. } | StoreError::Io { .. }) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
