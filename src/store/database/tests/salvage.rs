//! Backups of damaged and of older stores: what is refused, what is left out, what goes on.

use std::io::Cursor;

use crate::store::archive::{self, ArchiveWriter, Head};
use crate::store::database::tests::backups::{
    NOW, exported, filled, people, restore, staff, vault,
};
use crate::store::database::tests::disk::Disk;
use crate::store::database::tests::{PRESENT, event, name, person};
use crate::store::schema::{self, EVENTS};
use crate::store::vault::Place;
use crate::store::{Archive, AuditAct, AuditEntry, AuditLog, Store};

/// Key and value.
type Record = (Vec<u8>, Vec<u8>);

/// The records of a backup, each flipped for which `is_damaged` answers so, signed by its own key:
/// what a store with damaged records once handed out. `version` is what they claim to be.
fn altered(backup: &[u8], version: u32, is_damaged: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut file = Cursor::new(backup);
    let (head, _) = archive::check(&mut file).unwrap();
    let vault = vault(5);
    let mut tables: Vec<(String, Vec<Record>)> = Vec::new();
    archive::read_tables(&mut file, |table, key, value| {
        if tables.last().is_none_or(|(last, _)| last != table) {
            tables.push((table.to_string(), Vec::new()));
        }
        let mut value = value.to_vec();
        if table != "meta" {
            let place = Place { table, id: key, version: head.schema_version };
            let plain = vault.open(&place, &value).unwrap();
            value = vault.seal(&Place { version, ..place }, &plain).unwrap();
        } else if key == b"schema_version" {
            value = version.to_le_bytes().to_vec();
        } else if key == b"canary" && version != head.schema_version {
            let place = Place { table, id: key, version: head.schema_version };
            let plain = vault.open(&place, &value).unwrap();
            value = vault.seal(&Place { version, ..place }, &plain).unwrap();
        }
        if is_damaged(table) {
            *value.last_mut().unwrap() ^= 1;
        }
        tables.last_mut().unwrap().1.push((key.to_vec(), value));
        Ok::<(), archive::ArchiveError>(())
    })
    .unwrap();
    let mut out = Vec::new();
    let head = Head { schema_version: version, ..head };
    let mut writer = ArchiveWriter::begin(&mut out, &head, tables.len() as u32).unwrap();
    for (table, records) in &tables {
        writer.table(table, records.len() as u64).unwrap();
        for (key, value) in records {
            writer.record(key, value).unwrap();
        }
    }
    writer.end(|sha256| vault.sign_backup(sha256)).unwrap();
    out
}

/// One damaged event made every backup since then useless.
#[test]
fn damaged_events_and_pictures_are_left_out_and_damaged_people_are_not() {
    let backup = exported(&filled(&Disk::default()));
    let disk = Disk::default();
    let damaged = altered(&backup, PRESENT.version, |table| ["events", "images"].contains(&table));
    assert_eq!(restore(&disk, &damaged).unwrap().damaged, 4);
    let store = disk.open_store(10).unwrap();
    assert_eq!((people(&store), store.events(0, 9).unwrap().len()), (staff(1), 0));
    assert_eq!(store.event_bounds().unwrap().dropped, 3);
    assert_eq!(store.image(&name("staff"), &person("7", "").id).unwrap(), None);
    assert_eq!(store.append_event(&event(4)).unwrap(), 4);
    for table in ["persons", "keys", "collections"] {
        let damaged = altered(&backup, PRESENT.version, |own| own == table);
        let refused = restore(&Disk::default(), &damaged).unwrap_err().to_string();
        assert!(refused.contains(table), "{refused}");
    }
}

/// Rotation would remove the sound ones meanwhile.
#[test]
fn a_store_with_a_damaged_record_makes_no_backup_and_names_the_table() {
    let disk = Disk::default();
    let store = filled(&disk);
    store
        .write(|tx| {
            let mut events = tx.open_table(EVENTS.definition()).unwrap();
            events.insert(schema::event_key(2).as_slice(), [7; 99].as_slice()).unwrap();
            Ok(())
        })
        .unwrap();
    let error = store.export(NOW, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("`events`"), "{error}");
}

#[test]
fn a_backup_of_an_older_schema_does_not_turn_the_audit_log_back() {
    let entry = AuditEntry {
        seq: 0,
        time: NOW,
        by: "k1".to_string(),
        act: AuditAct::DeletePerson,
        subject: "kept".to_string(),
        times: 1,
    };
    let disk = Disk::default();
    let store = filled(&disk);
    let backup = altered(&exported(&store), PRESENT.version - 1, |_| false);
    store.append_audit(&[entry.clone(), entry]).unwrap();
    drop(store);
    restore(&disk, &backup).unwrap();
    let store = disk.open_store(10).unwrap();
    let subjects: Vec<_> =
        store.audit(0, 9).unwrap().into_iter().map(|entry| (entry.seq, entry.subject)).collect();
    let restored = format!("as of {NOW}");
    assert_eq!(subjects, [(1, "kept".into()), (2, "kept".into()), (3, restored)]);
}
