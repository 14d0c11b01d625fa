//! What the gate remembers: how the clocks went, which nonces were used, how many PINs were wrong.

use std::collections::HashSet;
use std::collections::VecDeque;

use crate::bus::commands::CLOCK_SETTLE;
use crate::bus::commands::CLOCK_STEP_MIN;
use crate::bus::commands::NONCE_MEMORY;
use crate::bus::commands::NONCES_MAX;
use crate::bus::commands::Now;
use crate::bus::commands::PIN_ATTEMPTS_MAX;
use crate::bus::commands::PIN_LOCKOUT;
use crate::bus::commands::PIN_WINDOW;
use crate::bus::commands::Refusal;
use crate::clock::Moment;
use crate::clock::UtcTime;

/// Notices when somebody sets the wall clock.
#[derive(Debug, Default)]
pub struct ClockWatch {
    last: Option<Now>,
    stepped: Option<Moment>,
}

impl ClockWatch {
    /// Takes note of both clocks.
    pub fn observe(&mut self, now: Now) {
        if let Some(last) = self.last {
            let expected = last.utc.plus(now.at.since(last.at));
            let off = now.utc.as_millis().abs_diff(expected.as_millis());
            if u128::from(off) >= CLOCK_STEP_MIN.as_millis() {
                self.stepped = Some(now.at);
            }
        }
        self.last = Some(now);
    }

    /// Whether the wall clock was set a moment ago.
    pub fn is_settling(&self, now: Now) -> bool {
        self.stepped.is_some_and(|stepped| now.at.since(stepped) < CLOCK_SETTLE)
    }
}

/// The nonces that were used, oldest first.
#[derive(Debug, Default)]
pub struct Nonces {
    order: VecDeque<(Moment, UtcTime, Box<str>)>,
    known: HashSet<Box<str>>,
}

impl Nonces {
    /// Whether a nonce was used up.
    pub fn knows(&self, nonce: &str) -> bool {
        self.known.contains(nonce)
    }

    /// Remembers a nonce, or says why it cannot serve.
    pub fn use_up(&mut self, nonce: &str, exp: UtcTime, now: Now) -> Result<(), Refusal> {
        self.forget_old(now);
        if self.known.contains(nonce) {
            return Err(Refusal::Repeated);
        }
        if self.len() >= NONCES_MAX {
            return Err(Refusal::TooMany);
        }
        self.known.insert(nonce.into());
        self.order.push_back((now.at, exp, nonce.into()));
        Ok(())
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.known.len().max(self.order.len())
    }

    /// What is old goes when the wall clock has passed it too, or when the room is needed.
    fn forget_old(&mut self, now: Now) {
        while let Some((used, exp, nonce)) = self.order.front() {
            let old = now.at.since(*used) > NONCE_MEMORY;
            if !old || (now.utc <= *exp && self.order.len() < NONCES_MAX) {
                return;
            }
            self.known.remove(nonce);
            self.order.pop_front();
        }
    }
}

/// Counts wrong PINs, by the monotonic clock.
#[derive(Debug, Default)]
pub struct PinGuard {
    wrong: VecDeque<Moment>,
    locked: Option<Moment>,
}

impl PinGuard {
    /// Whether nothing opens, not even with the right PIN.
    pub fn is_locked(&self, now: Now) -> bool {
        self.locked.is_some_and(|since| now.at.since(since) < PIN_LOCKOUT)
    }

    /// A wrong PIN came.
    pub fn note_wrong(&mut self, now: Now) {
        self.wrong.retain(|at| now.at.since(*at) < PIN_WINDOW);
        self.wrong.push_back(now.at);
        if self.wrong.len() >= PIN_ATTEMPTS_MAX {
            self.locked = Some(now.at);
            self.wrong.clear();
        }
    }

    /// The right PIN came.
    pub fn forget(&mut self) {
        self.wrong.clear();
    }
}
