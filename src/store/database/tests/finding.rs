//! An event is found by its id, whatever the wall clock did when it was written.

use crate::access::event::Event;
use crate::config::StoreConfig;
use crate::store::Store as _;
use crate::store::database::Database;
use crate::store::database::tests::config;
use crate::store::database::tests::event;

#[test]
fn an_event_is_found_by_its_id_wherever_the_clock_stood() {
    const HOUR: i64 = 3_600_000;
    const START: i64 = 1_800_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    let store = Database::open(&StoreConfig { events_max: 100, ..config(dir.path()) }).unwrap();
    let id = |at: i64, random: u128| ulid::Ulid::from_parts(at as u64, random).to_string();
    // Five days, then a start with a clock that is years behind, then the present again.
    let hours = (0..20).map(|number| START + number * 6 * HOUR);
    let behind = (0..5).map(|number| HOUR * number);
    let times: Vec<i64> = hours.chain(behind).chain([START + 130 * HOUR]).collect();
    for time in &times {
        store.append_event(&Event { id: id(*time, 1), ..event(*time) }).unwrap();
    }
    for (seq, time) in (1..).zip(&times) {
        let found = store.event(&id(*time, 1)).unwrap();
        assert_eq!(found.map(|event| event.seq), Some(seq), "{time}");
        assert_eq!(store.event(&id(*time, 2)).unwrap(), None);
    }
    for unknown in [id(i64::MAX >> 16, 1), "01JDA7Q8ZV3N5R6S7T8V9W0X1".into(), String::new()] {
        assert_eq!(store.event(&unknown).unwrap(), None, "{unknown}");
    }
}
