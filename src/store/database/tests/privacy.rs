//! What somebody finds who has the file and not the key.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable};

use crate::gallery::person::Person;
use crate::store::database::Database;
use crate::store::database::medium::{DATABASE_FILE_NAME, FRESH_FILE_NAME, LOCK_FILE_NAME};
use crate::store::database::tests::{
    config, create, event, key_record, name, open, person, picture, put,
};
use crate::store::keyfile::KEY_FILE_NAME;
use crate::store::schema::{IMAGES, PERSONS, SealedTable};
use crate::store::{Archive, Change, ImageChange, Store};

/// A picture long enough to fill pages of its own, and recognisable anywhere in it.
fn jpeg() -> Vec<u8> {
    b"PLAINTEXT-JPEG ".repeat(3000)
}

fn raw(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("state").join(DATABASE_FILE_NAME)).unwrap()
}

fn contains(raw: &[u8], needle: &[u8]) -> bool {
    raw.windows(needle.len()).any(|window| window == needle)
}

/// All sealed values of a table, as they stand in the file.
fn sealed_values(store: &Database, table: SealedTable) -> Vec<Vec<u8>> {
    let guard = store.live().unwrap();
    let tx = guard.as_ref().unwrap().begin_read().unwrap();
    let table = tx.open_table(table.definition()).unwrap();
    table.iter().unwrap().map(|entry| entry.unwrap().1.value().to_vec()).collect()
}

fn template_bytes(person: &Person) -> Vec<u8> {
    person.references[0].template.values().iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn nothing_readable_is_ever_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ada = person("PLAINTEXT-ID", "PLAINTEXT-NAME");
    let template = template_bytes(&ada);
    let check = |when: &str| {
        let raw = raw(dir.path());
        assert!(!contains(&raw, b"PLAINTEXT"), "{when}");
        assert!(!contains(&raw, &template), "{when}: template");
        assert!(!contains(&raw, &[7; 32]), "{when}: hash of a key");
    };
    store.commit(&create("PLAINTEXT-COLLECTION")).unwrap();
    store.commit(&put("PLAINTEXT-COLLECTION", &ada, picture(&jpeg()))).unwrap();
    store.commit(&Change::PutKey(key_record("PLAINTEXT-KEY-ID"))).unwrap();
    store.append_event(&event(1)).unwrap();
    check("after enrolment");
    store.commit(&Change::DeleteCollection { name: name("PLAINTEXT-COLLECTION") }).unwrap();
    check("after deletion");
    store.scrub().unwrap();
    check("after the scrub");
    drop(store);
    check("after the end");
    // The test would see it if it were there.
    assert!(contains(&jpeg(), b"PLAINTEXT"));
}

/// Captures the ciphertext of a person and the picture, deletes them with `change`, and expects
/// the bytes to be gone after a scrub.
fn gone_after(change: impl FnOnce(&Arc<Person>) -> Change) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ada = person("7", "Ada");
    store.commit(&create("staff")).unwrap();
    store.commit(&put("staff", &ada, picture(&jpeg()))).unwrap();
    let deleted: Vec<_> =
        [PERSONS, IMAGES].into_iter().flat_map(|table| sealed_values(&store, table)).collect();
    assert_eq!(deleted.len(), 2);
    store.commit(&create("visitors")).unwrap();
    store.commit(&put("visitors", &person("8", "Bob"), picture(b"bob"))).unwrap();
    assert!(deleted.iter().all(|sealed| contains(&raw(dir.path()), sealed)));

    store.commit(&change(&ada)).unwrap();
    assert!(store.statistics().unwrap().scrub_owed);
    assert!(deleted.iter().any(|sealed| contains(&raw(dir.path()), sealed)), "that is why");
    let report = store.scrub().unwrap();
    assert!(report.owed && report.records > 0 && report.bytes_after > 0);
    assert!(!store.statistics().unwrap().scrub_owed);
    assert!(!store.scrub().unwrap().owed, "once is enough");
    let check = |store: &Database| {
        let raw = raw(dir.path());
        for sealed in &deleted {
            assert!(
                !contains(&raw, &sealed[..64]) && !contains(&raw, &sealed[sealed.len() - 64..])
            );
        }
        assert_eq!(store.image(&name("visitors"), &person("8", "").id).unwrap().unwrap(), b"bob");
    };
    check(&store);
    store.append_event(&event(1)).unwrap();
    drop(store);
    check(&open(dir.path()));
}

#[test]
fn a_deleted_person_is_gone_from_the_raw_file() {
    gone_after(|ada| Change::DeletePerson { collection: name("staff"), id: ada.id.clone() });
}

#[test]
fn a_deleted_collection_is_gone_from_the_raw_file() {
    gone_after(|_| Change::DeleteCollection { name: name("staff") });
}

#[test]
fn replaced_templates_and_pictures_are_gone_from_the_raw_file() {
    gone_after(|_| put("staff", &person("7", "Ada L."), picture(b"another")));
    gone_after(|_| put("staff", &person("7", "Ada L."), ImageChange::Remove));
}

#[test]
fn a_scrub_that_is_owed_is_done_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ada = person("7", "Ada");
    store.commit(&create("staff")).unwrap();
    store.commit(&put("staff", &ada, picture(&jpeg()))).unwrap();
    let sealed = sealed_values(&store, IMAGES).remove(0);
    store.commit(&Change::DeleteCollection { name: name("staff") }).unwrap();
    // The file as a crash leaves it: an orderly end would give back what is free at its end.
    let crashed = raw(dir.path());
    drop(store);
    std::fs::write(config(dir.path()).dir.join(DATABASE_FILE_NAME), &crashed).unwrap();
    assert!(contains(&crashed, &sealed[100..200]));
    let store = open(dir.path());
    assert!(!contains(&raw(dir.path()), &sealed[100..200]));
    assert!(!store.statistics().unwrap().scrub_owed);
}

#[test]
fn readers_go_on_while_a_scrub_runs_and_changes_are_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&create("staff")).unwrap();
    store.commit(&put("staff", &person("keep", "Ada"), picture(b"kept"))).unwrap();
    let rounds = 10;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                let extra = person(&format!("extra {round}"), "Bob");
                store.commit(&put("staff", &extra, ImageChange::Keep)).unwrap();
                let collection = name("staff");
                store.commit(&Change::DeletePerson { collection, id: extra.id.clone() }).unwrap();
                let kept = person(&format!("kept {round}"), "Eve");
                store.commit(&put("staff", &kept, ImageChange::Keep)).unwrap();
            }
        });
        scope.spawn(|| (0..rounds).for_each(|_| assert!(store.scrub().is_ok())));
        scope.spawn(|| {
            for _ in 0..rounds * 10 {
                let image = store.image(&name("staff"), &person("keep", "").id).unwrap();
                assert_eq!(image.unwrap(), b"kept");
            }
        });
    });
    drop(store);
    assert_eq!(open(dir.path()).statistics().unwrap().persons, rounds + 1);
}

/// With a link in its place the owner of the directory could have root open, and give away, any file.
#[test]
fn a_lock_that_is_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = config(dir.path()).dir;
    std::fs::create_dir_all(&state).unwrap();
    let target = dir.path().join("somebody's");
    std::os::unix::fs::symlink(&target, state.join(LOCK_FILE_NAME)).unwrap();
    assert!(Database::open(&config(dir.path())).is_err());
    assert!(!target.exists());
}

#[test]
fn only_the_owner_may_look() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&create("staff")).unwrap();
    store.commit(&Change::DeleteCollection { name: name("staff") }).unwrap();
    store.scrub().unwrap();
    let state = config(dir.path()).dir;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for file in [DATABASE_FILE_NAME, KEY_FILE_NAME, LOCK_FILE_NAME] {
        assert_eq!(mode(&state.join(file)), 0o600, "{file}");
    }
    assert!(!state.join(FRESH_FILE_NAME).exists());
}
