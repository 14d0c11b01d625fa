//! P1 and P2 on the raw file of a daemon that ran: sealed while somebody is enrolled, gone after
//! the deletion.

use std::collections::HashSet;
use std::fs;

use serde_json::json;

use crate::support::client::enrolment;
use crate::support::{Home, People, holds};

/// Bytes of one piece that is looked for. Sealed records are random, so equal pieces of this
/// length are the same record.
const PIECE: usize = 32;

/// What the audit log keeps of an enrolment and a deletion, who did it to whom, is two sealed entries
/// of some 180 bytes. A template alone, the smallest record of a person, has more than 500.
const AUDIT_PIECES_MAX: usize = 400;

/// Every piece of a file that looks random, at any offset that a record may begin at.
fn pieces(file: &[u8]) -> HashSet<&[u8]> {
    let looks_sealed = |piece: &[u8]| piece.iter().collect::<HashSet<_>>().len() > PIECE / 2;
    file.windows(PIECE).filter(|piece| looks_sealed(piece)).collect()
}

#[test]
fn the_raw_file_forgets_a_deleted_person() {
    let test = "the_raw_file_forgets_a_deleted_person";
    let people = People::drawn(test);
    let home = Home::new();
    let daemon = home.start();
    daemon.client.create("staff");
    daemon.stop();
    let empty = fs::read(home.database()).unwrap();

    let daemon = home.start();
    let body =
        enrolment("staff", "somebody-unmistakable", &people.picture(0, 0), "StoreThumbnails");
    let enrolled = daemon.client.call("PUT /person", &body).ok();
    assert!(!enrolled["face_base_64"].as_str().unwrap().is_empty());
    daemon.stop();
    let full = fs::read(home.database()).unwrap();
    for secret in
        [&b"somebody-unmistakable"[..], b"Name of somebody", b"staff", b"\xff\xd8\xff\xe0"]
    {
        assert!(!holds(&home.path("store"), secret), "in the clear: {secret:?}");
    }
    // The sealed person and picture: random pieces that were not there before.
    let before = pieces(&empty);
    let sealed: HashSet<&[u8]> = pieces(&full).difference(&before).copied().collect();
    assert!(sealed.len() > 4000, "a thumbnail has that many bytes, found {}", sealed.len());

    let daemon = home.start();
    let who = json!({"collection_name": "staff", "person_id": "somebody-unmistakable"});
    daemon.client.call("DELETE /person", &who).ok();
    // A kill: the note that a scrub is owed must be durable by itself.
    let mut daemon = daemon;
    daemon.process.kill();
    let deleted = fs::read(home.database()).unwrap();
    home.start().stop();
    let scrubbed = fs::read(home.database()).unwrap();
    let left = |file: &[u8]| file.windows(PIECE).filter(|piece| sealed.contains(piece)).count();
    assert!(left(&deleted) > 0, "the test can see what a deletion leaves behind");
    let kept = left(&scrubbed);
    assert!(kept < AUDIT_PIECES_MAX, "{kept} pieces of the deleted person are still in the file");

    // Without the daemon the command itself sees to it.
    home.run(&["person", "list", "--collection", "staff"]).with(0);
    let picture = people.file(0, 0).to_str().unwrap();
    home.run(&["person", "enrol", "--collection", "staff", "--id", "again", picture]).with(0);
    let again = fs::read(home.database()).unwrap();
    let before = pieces(&scrubbed);
    let sealed: HashSet<&[u8]> = pieces(&again).difference(&before).copied().collect();
    home.run(&["person", "delete", "--collection", "staff", "again"]).with(0);
    let after = fs::read(home.database()).unwrap();
    let left = after.windows(PIECE).filter(|piece| sealed.contains(piece)).count();
    let is_gone = left < AUDIT_PIECES_MAX && sealed.len() > 2 * AUDIT_PIECES_MAX;
    assert!(is_gone, "{left} of {} pieces are left", sealed.len());
}
