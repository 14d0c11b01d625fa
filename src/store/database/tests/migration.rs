//! Older files: brought to the present schema step by step, and kept for the way back.

use std::path::Path;
use std::sync::Arc;

use crate::gallery::person::Person;
use crate::store::database::medium::{DATABASE_FILE_NAME, Directory};
use crate::store::database::tests::{
    PRESENT, create, event, id, key_record, name, person, picture, put,
};
use crate::store::database::{Database, Schema};
use crate::store::schema::{AUDIT, Migration, PERSONS, RecordError, SCHEMA_VERSION};
use crate::store::vault::MasterKey;
use crate::store::{Archive, Change, ImageChange, Store, StoreError};

const V1: Schema = Schema { version: 1, migrations: &[] };
/// Two steps: the first puts a byte at the end of every person's record, the second insists on it
/// and takes it away, so each has to run once, in order.
const V3: Schema = Schema {
    version: 3,
    migrations: &[
        Migration {
            from: 1,
            rewrite: |table, plain| {
                let mut plain = plain.to_vec();
                plain.extend((table == PERSONS).then_some(0));
                Ok(plain)
            },
        },
        Migration {
            from: 2,
            rewrite: |table, plain| match (table == PERSONS, plain.split_last()) {
                (true, Some((0, rest))) => Ok(rest.to_vec()),
                (true, _) => Err(RecordError::Truncated),
                (false, _) => Ok(plain.to_vec()),
            },
        },
    ],
};

fn open_as(dir: &Path, schema: Schema) -> Result<Database, StoreError> {
    let medium = Directory::lock(&dir.join("state")).unwrap();
    let key = MasterKey::new(zeroize::Zeroizing::new([3; 32]));
    Database::on_medium(Box::new(medium), (&key, "key".to_string()), 5, schema)
}

#[test]
fn an_older_file_is_migrated_step_by_step() {
    let dir = tempfile::tempdir().unwrap();
    let old = open_as(dir.path(), V1).unwrap();
    old.commit(&create("staff")).unwrap();
    let people: Vec<_> = (0..30).map(|n| person(&format!("{n:02}"), "Ada")).collect();
    for person in &people {
        old.commit(&put("staff", person, picture(b"jpeg"))).unwrap();
    }
    old.commit(&Change::PutKey(key_record("k1"))).unwrap();
    old.append_event(&event(1)).unwrap();
    let before = old.statistics().unwrap();
    drop(old);

    let new = open_as(dir.path(), V3).unwrap();
    assert_eq!(new.load().unwrap().collections, [(name("staff"), people)]);
    assert_eq!(new.image(&name("staff"), &id("07")).unwrap().unwrap(), b"jpeg");
    assert_eq!(new.load().unwrap().keys, [key_record("k1")]);
    assert_eq!(new.events(0, 9).unwrap().len(), 1);
    let after = new.statistics().unwrap();
    assert_eq!((after.persons, after.images), (before.persons, before.images));
    assert!(!after.scrub_owed, "the old forms are gone from the file");
    drop(new);

    let error = open_as(dir.path(), V1).err().unwrap();
    assert!(matches!(error, StoreError::TooNew { found: 3, supported: 1, .. }), "{error}");
}

/// The way back to the program of before the update: the file that it left is kept, and opens as
/// it was.
#[test]
fn the_file_of_version_1_is_kept_and_opens_again_with_the_program_of_then() {
    let dir = tempfile::tempdir().unwrap();
    let old = open_as(dir.path(), V1).unwrap();
    old.commit(&create("staff")).unwrap();
    // Form 1 of a person, which is all that version 1 knew.
    let ada = Arc::new(Person { eye_ratio: None, ..(*person("7", "Ada")).clone() });
    old.commit(&put("staff", &ada, picture(b"jpeg"))).unwrap();
    old.append_event(&event(1)).unwrap();
    let contents = old.load().unwrap();
    drop(old);
    let state = dir.path().join("state");
    // A program of then did not know the audit log.
    let raw = redb::Database::open(state.join(DATABASE_FILE_NAME)).unwrap();
    let tx = raw.begin_write().unwrap();
    tx.delete_table(AUDIT.definition()).unwrap();
    tx.commit().unwrap();
    drop(raw);

    let kept = state.join(format!("{DATABASE_FILE_NAME}.schema-1.bak"));
    let new = open_as(dir.path(), PRESENT).unwrap();
    assert_eq!(new.statistics().unwrap().migrated_from, Some(1));
    assert_eq!(new.statistics().unwrap().schema_version, SCHEMA_VERSION);
    assert_eq!(new.statistics().unwrap().program, env!("CARGO_PKG_VERSION"));
    new.commit(&Change::DeletePerson { collection: name("staff"), id: ada.id.clone() }).unwrap();
    drop(new);
    let bytes = std::fs::read(&kept).unwrap();
    drop(open_as(dir.path(), PRESENT).unwrap());
    assert!(bytes == std::fs::read(&kept).unwrap(), "only a migration keeps a file");

    let refused = open_as(dir.path(), V1).err().unwrap().to_string();
    let version = format!("schema version {SCHEMA_VERSION}");
    for words in [&version, "up to 1", env!("CARGO_PKG_VERSION"), "facelatch restore"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    std::fs::rename(&kept, state.join(DATABASE_FILE_NAME)).unwrap();
    let back = open_as(dir.path(), V1).unwrap();
    assert_eq!(back.load().unwrap().collections, contents.collections);
    assert_eq!(back.events(0, 9).unwrap().len(), 1);
}

/// A start that is killed in the middle copied the whole store again, and wrote over what was kept.
#[test]
fn a_state_is_kept_once_and_another_one_beside_it() {
    const FAILING: Schema = Schema {
        version: 2,
        migrations: &[Migration { from: 1, rewrite: |_, _| Err(RecordError::Truncated) }],
    };
    let dir = tempfile::tempdir().unwrap();
    let copies = || {
        let entries = std::fs::read_dir(dir.path().join("state")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.contains(".schema-")).collect();
        names.sort();
        names
    };
    open_as(dir.path(), V1).unwrap().commit(&create("staff")).unwrap();
    for _ in 0..3 {
        assert!(open_as(dir.path(), FAILING).is_err());
        assert_eq!(copies(), ["facelatch.redb.schema-1.bak"]);
    }
    open_as(dir.path(), V1).unwrap().commit(&create("more")).unwrap();
    assert!(open_as(dir.path(), FAILING).is_err());
    assert_eq!(copies(), ["facelatch.redb.schema-1-2.bak", "facelatch.redb.schema-1.bak"]);
}

#[test]
fn a_migration_that_cannot_keep_the_older_file_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_as(dir.path(), V1).unwrap());
    for copy in ["", "-2", "-3", "-4", "-5", "-6", "-7", "-8", "-9"] {
        let in_the_way = format!("{DATABASE_FILE_NAME}.schema-1{copy}.bak");
        std::fs::create_dir(dir.path().join("state").join(in_the_way)).unwrap();
    }
    let error = open_as(dir.path(), PRESENT).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert_eq!(open_as(dir.path(), V1).unwrap().statistics().unwrap().schema_version, 1);
}

#[test]
fn a_failed_migration_leaves_the_older_file_as_it_was() {
    const BROKEN: Schema = Schema {
        version: 2,
        migrations: &[Migration {
            from: 1,
            rewrite: |table, plain| {
                if table == PERSONS { Err(RecordError::Truncated) } else { Ok(plain.to_vec()) }
            },
        }],
    };
    const GAP: Schema = Schema { version: 2, migrations: &[] };
    let dir = tempfile::tempdir().unwrap();
    let old = open_as(dir.path(), V1).unwrap();
    old.commit(&create("staff")).unwrap();
    old.commit(&put("staff", &person("7", "Ada"), ImageChange::Keep)).unwrap();
    let contents = old.load().unwrap();
    drop(old);
    for schema in [BROKEN, GAP] {
        let error = open_as(dir.path(), schema).err().unwrap();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
    assert_eq!(open_as(dir.path(), V1).unwrap().load().unwrap().collections, contents.collections);
}
