//! The audit log on files and on media that fail.

use crate::clock::UtcTime;
use crate::store::database::tests::disk::{Disk, Survival};
use crate::store::database::tests::{create, name, open};
use crate::store::{AUDIT_ENTRIES_MAX, Archive, AuditAct, AuditEntry, AuditLog, Change, Store};

fn entry(subject: &str) -> AuditEntry {
    let (by, time) = ("PLAINTEXT-KEY".to_string(), UtcTime::from_millis(1_000));
    AuditEntry { seq: 99, time, by, act: AuditAct::Enrol, subject: subject.to_string(), times: 1 }
}

fn subjects(log: &dyn AuditLog) -> Vec<(u64, String)> {
    let entries = log.audit(0, 999).unwrap();
    entries.into_iter().map(|entry| (entry.seq, entry.subject)).collect()
}

#[test]
fn entries_survive_restarts_and_scrubs_and_cannot_be_read_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append_audit(&[entry("PLAINTEXT-1"), entry("PLAINTEXT-2")]).unwrap();
    store.commit(&create("staff")).unwrap();
    store.commit(&Change::DeleteCollection { name: name("staff") }).unwrap();
    store.append_audit(&[]).unwrap();
    assert!(store.scrub().unwrap().owed);
    drop(store);
    let file = std::fs::read(dir.path().join("state/facelatch.redb")).unwrap();
    assert!(!file.windows(9).any(|window| window == b"PLAINTEXT"));
    let store = open(dir.path());
    let expected = [(1, "PLAINTEXT-1".to_string()), (2, "PLAINTEXT-2".to_string())];
    assert_eq!(subjects(&store), expected);
    assert_eq!(store.audit(1, 1).unwrap()[0].seq, 2);
    assert!(store.audit(u64::MAX, 1).unwrap().is_empty());
}

#[test]
fn the_oldest_entries_go_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let many: Vec<AuditEntry> = (0..AUDIT_ENTRIES_MAX).map(|n| entry(&format!("{n}"))).collect();
    store.append_audit(&many).unwrap();
    store.append_audit(&many[..3]).unwrap();
    let bounds = store.audit_bounds().unwrap();
    assert_eq!((bounds.oldest_seq, bounds.dropped), (4, 3));
    assert_eq!(bounds.newest_seq, AUDIT_ENTRIES_MAX + 3);
    assert_eq!(subjects(&store)[0], (4, "3".to_string()));
    assert!(!store.statistics().unwrap().scrub_owed, "a full log owes nothing for each entry");
}

/// An administrative act is done only after this has returned.
#[test]
fn an_entry_that_was_acknowledged_survives_a_power_cut() {
    let mut refused = 0;
    for after in 0..400 {
        let disk = Disk::default();
        let store = disk.open_store(10).unwrap();
        store.append_audit(&[entry("before")]).unwrap();
        let begin = disk.operations();
        disk.fail(after, 1);
        let result = store.append_audit(&[entry("during")]);
        let reached = disk.operations() - begin > after;
        disk.heal();
        let later = disk.after_power_cut(|| Survival::Lost).open_store(10).unwrap();
        let expected = if result.is_ok() { 2 } else { 1 };
        assert_eq!(subjects(&later).len(), expected, "{after}");
        store.append_audit(&[entry("after")]).unwrap();
        let seqs: Vec<u64> = subjects(&store).into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "no number is left out");
        refused += usize::from(result.is_err());
        if !reached {
            break;
        }
    }
    assert!(refused > 0);
}
