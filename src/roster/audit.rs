//! Who did what: the audit log's way in.
//!
//! An administrative act is written down, durably, before it is done: whatever happens then, there is
//! no act without its entry. An act that is refused after all (a duplicate face, a medium that fails)
//! leaves an entry too, so the log says what was asked for. What names nobody and nothing that there
//! is leaves none: asking for it again and again must not push out what was done.
//!
//! Searches come by the second, and each write wears an SD card. They are counted in memory, one
//! line for each caller, kind and collection, and written together about once a minute and at a
//! stop. A power cut or a kill loses what was counted since; nothing else is lost. When there are
//! too many lines the next ones are counted as `(others)`, never left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::clock::Clock;
use crate::clock::UtcTime;
use crate::store::AuditAct;
use crate::store::AuditEntry;
use crate::store::AuditLog;
use crate::store::StoreError;

/// Lines that are counted at one time: 1000 keys at most, of which few search within a minute.
const LINES_MAX: usize = 256;
/// The device itself, as who does something.
pub const DEVICE: &str = "device";
/// The configured retention, as who does something.
pub const RETENTION: &str = "retention";
/// Whoever is let in by the file permissions of the device's own socket.
pub const LOCAL: &str = "local";
/// Subject of what came when there was no line left.
const OTHERS: &str = "(others)";

/// Writes down who does what; one for the whole program.
pub struct Audit {
    log: Arc<dyn AuditLog>,
    clock: Arc<dyn Clock>,
    counted: Mutex<BTreeMap<Line, Count>>,
}

/// Who did what to what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    by: String,
    act: AuditAct,
    subject: String,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    times: u32,
    first: UtcTime,
}

impl Audit {
    /// Writes into `log`.
    pub fn new(log: Arc<dyn AuditLog>, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock, counted: Mutex::default() }
    }

    /// Writes an act down before it is done; blocks on the disk. On an error it must not be done.
    pub fn before(&self, by: &str, act: AuditAct, subject: &str) -> Result<(), StoreError> {
        let line = Line { by: by.to_string(), act, subject: subject.to_string() };
        let entry = entry(&line, Count { times: 1, first: self.clock.utc() });
        self.log.append_audit(&[entry])
    }

    /// Counts something that comes often; never blocks on the disk.
    pub fn count(&self, by: &str, act: AuditAct, subject: &str) {
        let now = self.clock.utc();
        let mut counted = self.counted();
        let mut line = Line { by: by.to_string(), act, subject: subject.to_string() };
        if counted.len() >= LINES_MAX && !counted.contains_key(&line) {
            line = Line { by: OTHERS.to_string(), act, subject: OTHERS.to_string() };
        }
        let count = counted.entry(line).or_insert(Count { times: 0, first: now });
        count.times = count.times.saturating_add(1);
    }

    /// Writes down what was counted. What could not be written stays counted.
    pub fn flush(&self) -> Result<(), StoreError> {
        let taken = std::mem::take(&mut *self.counted());
        let entries: Vec<AuditEntry> =
            taken.iter().map(|(line, count)| entry(line, *count)).collect();
        self.log.append_audit(&entries).inspect_err(|_| {
            let mut counted = self.counted();
            for (line, count) in taken {
                let now = counted.entry(line).or_insert(Count { times: 0, ..count });
                now.times = now.times.saturating_add(count.times);
                now.first = now.first.min(count.first);
            }
        })
    }

    fn counted(&self) -> MutexGuard<'_, BTreeMap<Line, Count>> {
        // A panic elsewhere leaves whole lines behind.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Audit {
    /// The end of a command, or of a daemon in good order. A failure has been reported where it
    /// matters: at the last commit.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

fn entry(line: &Line, count: Count) -> AuditEntry {
    AuditEntry {
        seq: 0,
        time: count.first,
        by: line.by.clone(),
        act: line.act,
        subject: line.subject.clone(),
        times: count.times,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::SimulatedClock;
    use crate::store::memory::MemoryStore;

    const BEGIN: UtcTime = UtcTime::from_millis(1_700_000_000_000);

    fn bench() -> (Audit, Arc<MemoryStore>, Arc<SimulatedClock>) {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(SimulatedClock::new(BEGIN));
        (Audit::new(Arc::clone(&store) as _, Arc::clone(&clock) as _), store, clock)
    }

    fn lines(store: &MemoryStore) -> Vec<(u64, String, AuditAct, String, u32)> {
        let entries = store.audit(0, 999).unwrap();
        entries.into_iter().map(|own| (own.seq, own.by, own.act, own.subject, own.times)).collect()
    }

    #[test]
    fn an_act_is_on_the_medium_before_it_is_done() {
        let (audit, store, _) = bench();
        audit.before("k1", AuditAct::DeletePerson, "staff/7").unwrap();
        let row = (1, "k1".to_string(), AuditAct::DeletePerson, "staff/7".to_string(), 1);
        assert_eq!(lines(&store), [row]);
        store.fail_next(1);
        assert!(audit.before("k1", AuditAct::DeletePerson, "staff/8").is_err());
        assert_eq!(lines(&store).len(), 1);
    }

    #[test]
    fn searches_are_written_together_and_none_is_forgotten_by_a_failure() {
        let (audit, store, clock) = bench();
        for _ in 0..100 {
            audit.count("k1", AuditAct::Search, "staff");
            audit.count("k2", AuditAct::Search, "staff");
            clock.advance(Duration::from_millis(10));
        }
        assert!(lines(&store).is_empty());
        store.fail_next(1);
        assert!(audit.flush().is_err());
        audit.count("k1", AuditAct::Search, "staff");
        audit.flush().unwrap();
        let times: Vec<u32> = lines(&store).into_iter().map(|line| line.4).collect();
        assert_eq!(times, [101, 100]);
        assert_eq!(store.audit(0, 9).unwrap()[0].time, BEGIN);
        audit.flush().unwrap();
        assert_eq!(lines(&store).len(), 2, "nothing new, nothing written");
    }

    #[test]
    fn what_finds_no_line_is_counted_all_the_same() {
        let (audit, store, _) = bench();
        for number in 0..LINES_MAX + 50 {
            audit.count(&format!("k{number}"), AuditAct::Search, "staff");
        }
        audit.flush().unwrap();
        let lines = lines(&store);
        assert_eq!(lines.iter().map(|line| line.4).sum::<u32>() as usize, LINES_MAX + 50);
        assert_eq!(lines.iter().find(|line| line.1 == OTHERS).unwrap().4, 50);
    }
}
