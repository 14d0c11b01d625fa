//! The event log: a ring of sealed events, numbered without gaps and never twice.

use std::time::Duration;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};
use ulid::Ulid;

use crate::access::event::Event;
use crate::clock::UtcTime;
use crate::store::database::{Database, damaged, meta, not_sealed, refused};
use crate::store::schema::{self, EVENTS, META, META_EVENT_NEWEST, META_EVENTS_DROPPED};
use crate::store::{EventBounds, StoreError};

/// Most events that are unsealed to find one by its id: all that a busy door sees in a day.
const FIND_ROWS_MAX: usize = 20_000;
/// Events out of the order of time that the search passes over before it gives up: more than are
/// made in hours with a wrong clock. Few in tests, so that they see where the search begins.
const FIND_STRAYS_MAX: usize = if cfg!(test) { 8 } else { 2000 };
/// Events lie this close in time to their place in the log, by more than a mistaken time zone.
const FIND_SLACK: Duration = Duration::from_secs(24 * 3600);

impl Database {
    /// Appends an event and drops the oldest ones if the log is full.
    ///
    /// What is dropped here owes no scrub: a full log would owe one for every event. Its sealed
    /// bytes stay in free pages until they are written over or the next scrub comes.
    pub(super) fn append(&self, tx: &WriteTransaction, event: &Event) -> Result<u64, StoreError> {
        let mut meta = tx.open_table(META).map_err(refused)?;
        let seq = meta::counter(&meta, META_EVENT_NEWEST)? + 1;
        let numbered = Event { seq, ..event.clone() };
        let plain = schema::encode_event(&numbered).map_err(|error| not_sealed(EVENTS, &error))?;
        let key = schema::event_key(seq);
        let sealed = self.seal(EVENTS, &key, &plain)?;
        let mut events = tx.open_table(EVENTS.definition()).map_err(refused)?;
        events.insert(key.as_slice(), sealed.as_slice()).map_err(refused)?;
        let mut dropped = 0;
        while events.len().map_err(refused)? > self.events_max {
            events.pop_first().map_err(refused)?;
            dropped += 1;
        }
        count_dropped(&mut meta, dropped)?;
        meta::set_counter(&mut meta, META_EVENT_NEWEST, seq)?;
        Ok(seq)
    }

    /// Drops the oldest events up to a number; answers whether there were any. Nothing is unsealed.
    pub(super) fn drop_events(tx: &WriteTransaction, up_to: u64) -> Result<bool, StoreError> {
        let mut events = tx.open_table(EVENTS.definition()).map_err(refused)?;
        let mut dropped = 0;
        loop {
            let old = match events.first().map_err(refused)? {
                Some((key, _)) => {
                    let seq = schema::event_seq(key.value());
                    seq.map_err(|error| damaged(EVENTS, &error))? <= up_to
                }
                None => false,
            };
            if !old {
                break;
            }
            events.pop_first().map_err(refused)?;
            dropped += 1;
        }
        let mut meta = tx.open_table(META).map_err(refused)?;
        count_dropped(&mut meta, dropped)?;
        Ok(dropped > 0)
    }

    /// Brings a log that was larger by an earlier configuration down to its size.
    pub(super) fn trim_events(&self) -> Result<(), StoreError> {
        let held = self.read(|tx| {
            tx.open_table(EVENTS.definition()).map_err(refused)?.len().map_err(refused)
        })?;
        if held <= self.events_max {
            return Ok(());
        }
        self.write(|tx| {
            let mut events = tx.open_table(EVENTS.definition()).map_err(refused)?;
            for _ in self.events_max..held {
                events.pop_first().map_err(refused)?;
            }
            let mut meta = tx.open_table(META).map_err(refused)?;
            count_dropped(&mut meta, held - self.events_max)?;
            drop(meta);
            meta::owe_scrub(tx)
        })
    }

    pub(super) fn list_events(
        &self,
        tx: &ReadTransaction,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let Some(first) = after_seq.checked_add(1) else { return Ok(Vec::new()) };
        let events = tx.open_table(EVENTS.definition()).map_err(refused)?;
        let range = events.range(schema::event_key(first).as_slice()..).map_err(refused)?;
        let mut listed = Vec::new();
        for entry in range.take(limit) {
            let (key, sealed) = entry.map_err(refused)?;
            listed.push(self.event(key.value(), sealed.value())?);
        }
        Ok(listed)
    }

    /// The time in an id says where in the log the event lies, so little of it is unsealed, also for
    /// an id that nothing has. Where the wall clock was wrong for a while the log is not in order of
    /// time: some strays are passed over, and the newest are looked through as well.
    pub(super) fn find_event(
        &self,
        tx: &ReadTransaction,
        id: &str,
    ) -> Result<Option<Event>, StoreError> {
        let events = tx.open_table(EVENTS.definition()).map_err(refused)?;
        let seq = |key: &[u8]| schema::event_seq(key).map_err(|error| damaged(EVENTS, &error));
        let (oldest, newest) = match (events.first(), events.last()) {
            (Ok(Some(first)), Ok(Some(last))) => (seq(first.0.value())?, seq(last.0.value())?),
            (Err(error), _) | (_, Err(error)) => return Err(refused(error)),
            _ => return Ok(None),
        };
        let Ok(wanted) = id.parse::<Ulid>() else { return Ok(None) };
        let time = UtcTime::from_millis(wanted.timestamp_ms().try_into().unwrap_or(i64::MAX));
        let (earliest, latest) = (time.minus(FIND_SLACK), time.plus(FIND_SLACK));
        let read = |seq: u64| -> Result<Option<Event>, StoreError> {
            let key = schema::event_key(seq);
            let sealed = events.get(key.as_slice()).map_err(refused)?;
            sealed.map(|sealed| self.event(&key, sealed.value())).transpose()
        };
        // The first event that is later than any place where the wanted one may lie.
        let (mut low, mut high) = (oldest, newest.saturating_add(1));
        while low < high {
            let middle = low.midpoint(high);
            match read(middle)? {
                Some(event) if event.t_decision > latest => high = middle,
                _ => low = middle.saturating_add(1),
            }
        }
        let mut strays = 0;
        for seq in (oldest..low).rev().take(FIND_ROWS_MAX) {
            match read(seq)? {
                Some(event) if event.id == id => return Ok(Some(event)),
                Some(event) if event.t_decision < earliest => strays += 1,
                _ => {}
            }
            if strays > FIND_STRAYS_MAX {
                break;
            }
        }
        for seq in (oldest..=newest).rev().take(FIND_STRAYS_MAX) {
            if let Some(event) = read(seq)?.filter(|event| event.id == id) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    pub(super) fn bounds(tx: &ReadTransaction) -> Result<EventBounds, StoreError> {
        let events = tx.open_table(EVENTS.definition()).map_err(refused)?;
        let meta = tx.open_table(META).map_err(refused)?;
        let newest_seq = meta::counter(&meta, META_EVENT_NEWEST)?;
        let oldest_seq = match events.first().map_err(refused)? {
            Some((key, _)) => {
                schema::event_seq(key.value()).map_err(|error| damaged(EVENTS, &error))?
            }
            None => newest_seq + 1,
        };
        let dropped = meta::counter(&meta, META_EVENTS_DROPPED)?;
        Ok(EventBounds { oldest_seq, newest_seq, dropped })
    }

    fn event(&self, key: &[u8], sealed: &[u8]) -> Result<Event, StoreError> {
        let plain = self.unseal(EVENTS, key, sealed)?;
        schema::decode_event(&plain).map_err(|error| damaged(EVENTS, &error))
    }
}

fn count_dropped(meta: &mut meta::MetaTable<'_>, more: u64) -> Result<(), StoreError> {
    if more == 0 {
        return Ok(());
    }
    let dropped = meta::counter(meta, META_EVENTS_DROPPED)?;
    meta::set_counter(meta, META_EVENTS_DROPPED, dropped.saturating_add(more))
}
