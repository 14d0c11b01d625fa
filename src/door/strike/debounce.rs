//! One input that must be steady before it counts. Pure.

use std::time::Duration;

use crate::clock::Moment;

/// A level, once it has been steady for long enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Debounced {
    /// `None`: not known yet, or not wired.
    pub(in crate::door::strike) steady: Option<bool>,
    /// Another level, and since when nothing else was read.
    pub(in crate::door::strike) candidate: Option<(bool, Moment)>,
}

/// The steady level has become another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The new level.
    pub level: bool,
    /// When it was first read.
    pub since: Moment,
    /// Whether it is the first that is known: nothing has happened then, it was found so.
    pub found: bool,
}

impl Debounced {
    /// Takes what was read. Nothing read is no news.
    pub fn read(&mut self, level: Option<bool>, now: Moment) {
        let Some(level) = level else { return };
        if self.steady == Some(level) {
            self.candidate = None;
        } else if self.candidate.is_none_or(|(known, _)| known != level) {
            self.candidate = Some((level, now));
        }
    }

    /// The new level, once it has been read for `least`.
    pub fn settle(&mut self, least: Duration, now: Moment) -> Option<Edge> {
        let (level, since) = self.candidate.filter(|(_, since)| now.since(*since) >= least)?;
        let found = self.steady.is_none();
        *self = Self { steady: Some(level), candidate: None };
        Some(Edge { level, since, found })
    }

    /// When [`Debounced::settle`] has something to say if nothing else is read.
    pub fn deadline(&self, least: Duration) -> Option<Moment> {
        self.candidate.map(|(_, since)| since.plus(least))
    }

    /// Nobody has watched for a while: what was not steady yet begins anew.
    pub fn interrupt(&mut self) {
        self.candidate = None;
    }

    /// The steady level.
    pub fn level(&self) -> Option<bool> {
        self.steady
    }

    /// Whether the steady level will become "true" unless something else is read.
    pub fn is_rising(&self) -> bool {
        self.candidate.is_some_and(|(level, _)| level)
    }
}
