//! Backups: what is in one, what is refused, and media that fail while one is made or restored.

use std::io::{self, Cursor, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::access::event::Event;
use crate::clock::UtcTime;
use crate::store::archive::{ArchiveWriter, Head};
use crate::store::database::Database;
use crate::store::database::restore::{Restored, Restorer};
use crate::store::database::tests::disk::{Disk, Survival};
use crate::store::database::tests::{
    PRESENT, config, create, event, key_record, name, open, person, picture, put,
};
use crate::store::keyfile::KEY_FILE_NAME;
use crate::store::vault::{MasterKey, Vault};
use crate::store::{
    Archive, AuditAct, AuditEntry, AuditLog, Change, ImageChange, Setting, Store, StoreError,
};

pub const NOW: UtcTime = UtcTime::from_millis(1_700_000_000_000);
/// Failures are tried at every operation up to this one, which is beyond any restore here.
const OPERATIONS_MAX: u64 = 2000;

pub fn vault(byte: u8) -> Vault {
    Vault::new(&MasterKey::new(zeroize::Zeroizing::new([byte; 32])))
}

/// As [`Disk::open_store`], with its key.
pub fn restore(disk: &Disk, backup: &[u8]) -> Result<Restored, StoreError> {
    restore_with(disk, backup, 5)
}

fn restore_with(disk: &Disk, backup: &[u8], key: u8) -> Result<Restored, StoreError> {
    let restorer = Restorer {
        medium: disk,
        vault: &vault(key),
        key_name: "the key",
        schema: PRESENT,
        backup_name: "the backup",
        now: NOW,
    };
    restorer.run(&mut Cursor::new(backup))
}

pub fn exported(store: &Database) -> Vec<u8> {
    let mut out = Vec::new();
    let exported = store.export(NOW, &mut out).unwrap();
    assert_eq!(exported.bytes, out.len() as u64);
    out
}

/// A store with somebody, a key and three events.
pub fn filled(disk: &Disk) -> Database {
    let store = disk.open_store(10).unwrap();
    store.commit(&create("staff")).unwrap();
    store.commit(&put("staff", &person("7", "Ada"), picture(&[9; 9000]))).unwrap();
    store.commit(&Change::PutKey(key_record("k1"))).unwrap();
    append(&store, 1..=3);
    store
}

fn append(store: &Database, millis: std::ops::RangeInclusive<i64>) {
    for millis in millis {
        store.append_event(&event(millis)).unwrap();
    }
}

/// Collections by name, with their numbers of people.
pub fn people(store: &Database) -> Vec<(String, usize)> {
    let contents = store.load().unwrap();
    contents.collections.iter().map(|(name, people)| (name.to_string(), people.len())).collect()
}

pub fn staff(count: usize) -> Vec<(String, usize)> {
    vec![("staff".to_string(), count)]
}

#[test]
fn a_restored_store_is_the_one_that_was_backed_up() {
    let (disk, other) = (Disk::default(), Disk::default());
    let store = filled(&disk);
    let backup = exported(&store);
    let restored = restore(&other, &backup).unwrap();
    assert_eq!((restored.created, restored.kept_as), (NOW, None));
    assert_eq!(restored.program, env!("CARGO_PKG_VERSION"));
    let copy = other.open_store(10).unwrap();
    assert_eq!(copy.load().unwrap().collections, store.load().unwrap().collections);
    assert_eq!(copy.load().unwrap().keys, store.load().unwrap().keys);
    assert_eq!(copy.events(0, 9).unwrap(), store.events(0, 9).unwrap());
    assert_eq!(copy.event_bounds().unwrap(), store.event_bounds().unwrap());
    let image = copy.image(&name("staff"), &person("7", "").id).unwrap();
    assert_eq!(image.unwrap(), [9; 9000]);
    assert_eq!(copy.append_event(&event(4)).unwrap(), 4);
}

/// What was deleted and not yet scrubbed is in the database file; it must not travel further.
#[test]
fn a_backup_holds_nothing_that_was_deleted_and_owes_no_scrub() {
    let disk = Disk::default();
    let store = filled(&disk);
    let with_ada = exported(&store).len();
    let delete = Change::DeletePerson { collection: name("staff"), id: person("7", "").id.clone() };
    store.commit(&delete).unwrap();
    assert!(store.statistics().unwrap().scrub_owed);
    let backup = exported(&store);
    assert!(backup.len() + 9000 <= with_ada);
    let other = Disk::default();
    restore(&other, &backup).unwrap();
    assert!(!other.open_store(10).unwrap().statistics().unwrap().scrub_owed);
}

#[test]
fn what_cannot_be_restored_is_named_and_changes_nothing() {
    let disk = Disk::default();
    let store = filled(&disk);
    let backup = exported(&store);
    drop(store);
    let live = disk.bytes_of_live();
    let refused = |backup: &[u8], key| {
        let error = restore_with(&disk, backup, key).unwrap_err().to_string();
        assert!(disk.bytes_of_live() == live, "{error}");
        assert!(disk.kept().is_empty(), "{error}");
        error
    };
    let half = &backup[..backup.len() / 2];
    assert!(refused(half, 5).contains("torn or was altered"));
    let mut flipped = backup.clone();
    flipped[backup.len() / 2] ^= 1;
    assert!(refused(&flipped, 5).contains("torn or was altered"));
    let mut signed_by_nobody = backup.clone();
    *signed_by_nobody.last_mut().unwrap() ^= 1;
    assert!(refused(&signed_by_nobody, 5).contains("joined together from several"));
    let wrong_key = refused(&backup, 6);
    assert!(wrong_key.contains("the key in the key does not open"), "{wrong_key}");
    assert!(refused(&live, 5).contains("not a backup of facelatch"), "a database is no backup");
    let mut later = Vec::new();
    let head = Head { schema_version: 99, created: NOW, program: "9.9.9".to_string() };
    ArchiveWriter::begin(&mut later, &head, 0)
        .unwrap()
        .end(|sha| vault(5).sign_backup(sha))
        .unwrap();
    let too_new = refused(&later, 5);
    assert!(too_new.contains("99") && too_new.contains("9.9.9"), "{too_new}");
    let mut empty = Vec::new();
    let head = Head { schema_version: 2, ..head };
    ArchiveWriter::begin(&mut empty, &head, 0)
        .unwrap()
        .end(|sha| vault(5).sign_backup(sha))
        .unwrap();
    refused(&empty, 5);
}

/// Records of two backups of one store open all; a revoked key would come back with them.
#[test]
fn records_of_another_backup_cannot_be_mixed_in() {
    let disk = Disk::default();
    let store = filled(&disk);
    let before = exported(&store);
    store.commit(&Change::DeleteKey { id: "k1".to_string() }).unwrap();
    let after = exported(&store);
    let parse = |backup: &[u8]| {
        let mut file = Cursor::new(backup);
        let (head, _) = crate::store::archive::check(&mut file).unwrap();
        let mut records = Vec::new();
        crate::store::archive::read_tables(&mut file, |table, key, value| {
            records.push((table.to_string(), key.to_vec(), value.to_vec()));
            Ok::<(), crate::store::archive::ArchiveError>(())
        })
        .unwrap();
        (head, records)
    };
    let (head, mut records) = parse(&after);
    let revoked = parse(&before).1.into_iter().find(|(table, ..)| table == "keys").unwrap();
    records.push(revoked);
    let mut forged = Vec::new();
    let mut writer = ArchiveWriter::begin(&mut forged, &head, records.len() as u32).unwrap();
    for (table, key, value) in &records {
        writer.table(table, 1).unwrap();
        writer.record(key, value).unwrap();
    }
    writer.end(|_| [0; 32]).unwrap();
    let other = Disk::default();
    assert!(restore(&other, &forged).unwrap_err().to_string().contains("joined together"));
}

#[test]
fn the_numbers_of_events_and_the_door_do_not_run_backwards() {
    let disk = Disk::default();
    let store = filled(&disk);
    let put = |setting, value: &[u8]| {
        store.commit(&Change::PutSetting { setting, value: value.to_vec() }).unwrap();
    };
    put(Setting::Door, b"normal");
    put(Setting::Outbox, b"acknowledged 3");
    let backup = exported(&store);
    append(&store, 4..=8);
    put(Setting::Door, b"lockdown");
    put(Setting::Outbox, b"acknowledged 8");
    drop(store);

    let restored = restore(&disk, &backup).unwrap();
    let kept = disk.kept();
    assert_eq!(restored.kept_as, Some(format!("facelatch.redb.{}", kept[0].0)));
    assert!(kept[0].0.ends_with(".before-restore"), "{}", kept[0].0);
    let store = disk.open_store(10).unwrap();
    assert_eq!(store.setting(Setting::Door).unwrap().unwrap(), b"lockdown");
    assert_eq!(store.setting(Setting::Outbox).unwrap().unwrap(), b"acknowledged 8");
    let seqs = |store: &Database| -> Vec<u64> {
        store.events(0, 99).unwrap().iter().map(|event: &Event| event.seq).collect()
    };
    assert_eq!(seqs(&store), [1, 2, 3]);
    assert_eq!(store.event_bounds().unwrap().dropped, 5, "the numbers that are missing");
    assert_eq!(store.append_event(&event(9)).unwrap(), 9, "no number is given twice");
    assert_eq!(seqs(&store), [1, 2, 3, 9]);
    assert_eq!(store.event("event 2").unwrap(), None, "no id of an event");
}

/// Otherwise whoever may restore could wipe out what they did.
#[test]
fn a_restore_does_not_turn_the_audit_log_back() {
    let entry = |subject: &str| AuditEntry {
        seq: 0,
        time: NOW,
        by: "k1".to_string(),
        act: AuditAct::DeletePerson,
        subject: subject.to_string(),
        times: 1,
    };
    let (disk, other) = (Disk::default(), Disk::default());
    let store = filled(&disk);
    store.append_audit(&[entry("before")]).unwrap();
    let backup = exported(&store);
    store.append_audit(&[entry("after")]).unwrap();
    drop(store);
    restore(&disk, &backup).unwrap();
    restore(&other, &backup).unwrap();
    let subjects = |disk: &Disk| -> Vec<String> {
        let entries = disk.open_store(10).unwrap().audit(0, 9).unwrap();
        entries.into_iter().map(|entry| entry.subject).collect()
    };
    let restored = format!("as of {NOW}");
    assert_eq!(subjects(&disk), ["before", "after", &restored]);
    assert_eq!(subjects(&other), ["before", &restored], "begins with that of the old one");
    let store = disk.open_store(10).unwrap();
    store.append_audit(&[entry("next")]).unwrap();
    assert_eq!(store.audit_bounds().unwrap().newest_seq, 4);
}

#[test]
fn a_damaged_store_is_replaced_as_well() {
    let disk = Disk::default();
    let backup = exported(&filled(&disk));
    disk.overwrite_live(&[0; 10_000]);
    assert!(disk.open_store(10).is_err());
    assert!(restore(&disk, &backup).unwrap().kept_as.is_some());
    assert_eq!(people(&disk.open_store(10).unwrap()), staff(1));
    assert_eq!(disk.kept()[0].1, [0; 10_000], "somebody may want to look at it");
}

#[test]
fn a_medium_that_fails_while_a_backup_is_made_costs_the_backup_only() {
    let mut failed = 0;
    for after in 0..OPERATIONS_MAX {
        let disk = Disk::default();
        let store = filled(&disk);
        drop(store);
        let store = disk.open_store(10).unwrap();
        let begin = disk.operations();
        disk.fail(after, 1);
        let mut out = Vec::new();
        let result = store.export(NOW, &mut out);
        let reached = disk.operations() - begin > after;
        disk.heal();
        failed += usize::from(result.is_err());
        let backup = exported(&store);
        restore(&Disk::default(), &backup).unwrap();
        store.append_event(&event(4)).unwrap();
        if !reached {
            assert!(result.is_ok());
            break;
        }
    }
    assert!(failed > 0, "no failure was ever reported");
}

/// A full card in the place where the backup goes is no failure of the store.
#[test]
fn a_place_that_is_full_leaves_the_store_open() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let disk = Disk::default();
    let store = filled(&disk);
    let length = exported(&store).len();
    for room in 0..length {
        let error = store.export(NOW, &mut Full(room)).unwrap_err();
        assert!(matches!(error, StoreError::Backup { .. }), "{room}: {error}");
    }
    assert!(store.live.read().unwrap().is_some(), "its handle was never in doubt");
    store.export(NOW, &mut Full(length)).unwrap();
}

#[test]
fn a_restore_that_fails_anywhere_leaves_the_old_store_or_the_new_one() {
    let source = Disk::default();
    let backup = exported(&filled(&source));
    let (mut failed, mut done) = (0, 0);
    for after in 0..OPERATIONS_MAX {
        let disk = Disk::default();
        disk.open_store(10).unwrap().commit(&create("staff")).unwrap();
        let begin = disk.operations();
        disk.fail(after, 1);
        let result = restore(&disk, &backup);
        let reached = disk.operations() - begin > after;
        disk.heal();
        let found = people(&disk.open_store(10).unwrap());
        match &result {
            Ok(_) => assert_eq!(found, staff(1), "{after}"),
            Err(_) => assert_eq!(found, staff(0), "{after}"),
        }
        restore(&disk, &backup).unwrap();
        assert_eq!(people(&disk.open_store(10).unwrap()), staff(1), "{after}");
        failed += usize::from(result.is_err());
        done += usize::from(result.is_ok());
        if !reached {
            break;
        }
    }
    assert!(failed > 10 && done > 0, "{failed} failed, {done} went through");
}

#[test]
fn a_power_cut_in_the_middle_of_a_restore_leaves_the_old_store_or_the_new_one() {
    let source = Disk::default();
    let backup = exported(&filled(&source));
    let (mut old, mut new) = (0, 0);
    for after in 0..OPERATIONS_MAX {
        for survival in [Survival::Whole, Survival::Torn, Survival::Lost] {
            let disk = Disk::default();
            disk.open_store(10).unwrap().commit(&create("staff")).unwrap();
            disk.fail(after, u64::MAX);
            let result = restore(&disk, &backup);
            let later = disk.after_power_cut(|| survival);
            let found = people(&later.open_store(10).unwrap());
            assert!(found == staff(0) || found == staff(1), "{after} {survival:?}: {found:?}");
            old += usize::from(found == staff(0));
            new += usize::from(found == staff(1));
            if result.is_ok() {
                assert_eq!(found, staff(1), "{after} {survival:?}");
                assert!(old > 10 && new > 0);
                return;
            }
        }
    }
    panic!("no restore went through");
}

/// One moment of the store: two people are always written together, with one number in their names.
#[test]
fn a_backup_is_of_one_moment_while_people_are_enrolled() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&create("staff")).unwrap();
    let pair = |number: usize| {
        let one = |id: &str| (person(id, &number.to_string()), ImageChange::Keep);
        Change::PutPersons { collection: name("staff"), persons: vec![one("a"), one("zz")] }
    };
    store.commit(&pair(0)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (1..40).for_each(|number| store.commit(&pair(number)).unwrap());
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let backup = exported(&store);
            let target = tempfile::tempdir().unwrap();
            let state = config(target.path()).dir;
            std::fs::create_dir(&state).unwrap();
            std::fs::copy(config(dir.path()).dir.join(KEY_FILE_NAME), state.join(KEY_FILE_NAME))
                .unwrap();
            let file = target.path().join("backup");
            std::fs::write(&file, &backup).unwrap();
            Database::restore(&config(target.path()), &file, NOW).unwrap();
            let found = open(target.path()).load().unwrap();
            let people = &found.collections[0].1;
            assert_eq!(people[0].name, people[1].name, "half a change was backed up");
        }
    });
}

#[test]
fn a_restore_needs_the_key_and_makes_none() {
    let (dir, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    store.commit(&create("staff")).unwrap();
    let file = target.path().join("backup");
    std::fs::write(&file, exported(&store)).unwrap();
    let error = Database::restore(&config(target.path()), &file, NOW).unwrap_err();
    assert!(error.to_string().contains("a backup holds no key"), "{error}");
    let state = config(target.path()).dir;
    assert!(!state.join(KEY_FILE_NAME).exists());
    let in_use = Database::restore(&config(dir.path()), &file, NOW).unwrap_err();
    assert!(matches!(in_use, StoreError::InUse { .. }), "{in_use}");
    std::fs::copy(config(dir.path()).dir.join(KEY_FILE_NAME), state.join(KEY_FILE_NAME)).unwrap();
    Database::restore(&config(target.path()), &file, NOW).unwrap();
    assert_eq!(people(&open(target.path())), staff(0));
    let absent = Database::restore(&config(target.path()), &target.path().join("no"), NOW);
    assert!(absent.unwrap_err().to_string().contains("/no "));
}
