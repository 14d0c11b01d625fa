//! Media that fail for a while: an error tells the truth, and the next call goes on.

use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::store::database::tests::disk::{Disk, Survival};
use crate::store::database::tests::{create, event, name, person, picture, put};
use crate::store::{Archive, Change, Contents, ImageChange, Store, StoreError};

/// Failures are tried at every operation up to this one, which is beyond any single change here.
const OPERATIONS_MAX: u64 = 400;

fn is_io<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Io { .. }))
}

fn collections(contents: &Contents) -> Vec<String> {
    contents.collections.iter().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn after_one_failed_operation_the_next_call_works_and_the_answer_was_true() {
    let (mut refused, mut confirmed) = (0, 0);
    for after in 0..OPERATIONS_MAX {
        let disk = Disk::default();
        let store = disk.open_store(10).unwrap();
        store.commit(&create("before")).unwrap();
        let begin = disk.operations();
        disk.fail(after, 1);
        let result = store.commit(&create("during"));
        if disk.operations() - begin <= after {
            assert!(result.is_ok());
            break;
        }
        let contents = store.load().expect("the next call opens the database anew");
        match result {
            Ok(()) => {
                confirmed += 1;
                assert_eq!(collections(&contents), ["before", "during"], "{after}");
            }
            Err(StoreError::Io { .. }) => {
                refused += 1;
                assert_eq!(collections(&contents), ["before"], "{after}");
            }
            Err(other) => panic!("{after}: {other}"),
        }
        store.commit(&create("after")).unwrap();
        let reopened = disk.after_power_cut(|| Survival::Lost);
        let contents = reopened.open_store(10).unwrap().load().unwrap();
        assert!(collections(&contents).contains(&"after".to_string()), "{after}");
        assert_eq!(collections(&contents).contains(&"during".to_string()), result.is_ok());
    }
    assert!(refused > 0, "no failure was ever reported");
    assert!(confirmed > 0, "no commit got through although its last operation failed");
}

#[test]
fn a_medium_that_stays_away_gives_errors_until_it_is_back() {
    let disk = Disk::default();
    let store = disk.open_store(10).unwrap();
    store.commit(&create("staff")).unwrap();
    store.commit(&put("staff", &person("7", "Ada"), picture(&[1; 9000]))).unwrap();
    disk.fail(0, u64::MAX);
    assert!(is_io(&store.commit(&create("other"))));
    for _ in 0..3 {
        assert!(is_io(&store.load()));
        assert!(is_io(&store.append_event(&event(1))));
        assert!(is_io(&store.image(&name("staff"), &person("7", "").id)));
        assert!(is_io(&store.scrub()));
        assert!(is_io(&store.event_bounds()));
    }
    disk.heal();
    assert_eq!(store.append_event(&event(1)).unwrap(), 1, "a failed event has no number");
    assert_eq!(store.load().unwrap().collections[0].1.len(), 1);
    let image = store.image(&name("staff"), &person("7", "").id).unwrap();
    assert_eq!(image.unwrap(), [1; 9000]);
}

/// A failed handle was closed after others could already open the file anew. They found it locked
/// by this very process and were told that another one uses the store; a commit that had got
/// through was answered as if it had not.
#[test]
fn a_reader_that_comes_while_a_failed_handle_is_closed_waits_for_it() {
    let disk = Disk::default();
    let store = disk.open_store(10).unwrap();
    store.commit(&create("staff")).unwrap();
    let (closing, closes) = mpsc::channel();
    let (answered, answers) = mpsc::channel();
    let (closing, answers) = (Mutex::new(closing), Mutex::new(answers));
    disk.on_close(move || {
        // The reader cannot answer before the handle is closed, so this ends by its time limit.
        let _ = closing.lock().unwrap().send(());
        let _ = answers.lock().unwrap().recv_timeout(Duration::from_millis(300));
    });
    thread::scope(|scope| {
        let store = &store;
        let reader = scope.spawn(move || {
            closes.recv().unwrap();
            let read = store.load();
            let _ = answered.send(());
            read
        });
        disk.fail(0, 1);
        assert!(is_io(&store.commit(&create("other"))));
        assert_eq!(collections(&reader.join().unwrap().unwrap()), ["staff"]);
    });
}

#[test]
fn a_full_medium_refuses_and_keeps_what_it_has() {
    let disk = Disk::default();
    let store = disk.open_store(10).unwrap();
    store.commit(&create("staff")).unwrap();
    disk.limit(Some(disk.length() + (1 << 18)));
    let mut stored = 0;
    let refused = loop {
        let person = person(&format!("{stored}"), "Ada");
        match store.commit(&put("staff", &person, picture(&vec![0xEE; 20_000]))) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "the medium is never full");
    };
    assert!(matches!(refused, StoreError::Io { .. }), "{refused}");
    assert_eq!(store.load().unwrap().collections[0].1.len(), stored);
    disk.limit(None);
    store.commit(&put("staff", &person("last", "Bob"), ImageChange::Keep)).unwrap();
    let reopened = disk.after_power_cut(|| Survival::Lost);
    let contents = reopened.open_store(10).unwrap().load().unwrap();
    assert_eq!(contents.collections[0].1.len(), stored + 1);
}

#[test]
fn a_scrub_that_fails_anywhere_loses_nothing_and_stays_owed() {
    let mut failed = 0;
    for after in 0..OPERATIONS_MAX {
        let disk = Disk::default();
        let store = disk.open_store(10).unwrap();
        for collection in ["gone", "kept"] {
            store.commit(&create(collection)).unwrap();
            store.commit(&put(collection, &person("7", "Ada"), picture(&[9; 9000]))).unwrap();
        }
        store.commit(&Change::DeleteCollection { name: name("gone") }).unwrap();
        let begin = disk.operations();
        disk.fail(after, 1);
        let result = store.scrub();
        let reached = disk.operations() - begin > after;
        disk.heal();
        assert_eq!(collections(&store.load().unwrap()), ["kept"], "{after}");
        assert_eq!(store.statistics().unwrap().scrub_owed, result.is_err(), "{after}");
        store.commit(&create("new")).unwrap();
        assert_eq!(store.scrub().unwrap().owed, result.is_err(), "{after}");
        let reopened = disk.after_power_cut(|| Survival::Lost);
        let contents = reopened.open_store(10).unwrap().load().unwrap();
        assert_eq!(collections(&contents), ["kept", "new"], "{after}");
        if !reached {
            break;
        }
        failed += usize::from(result.is_err());
    }
    assert!(failed > 10, "only {failed} operations of a scrub failed");
}
