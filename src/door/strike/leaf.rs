//! The alarms of the door leaf: forced open, and open for too long. Pure.

use std::time::Duration;

use crate::clock::Moment;
use crate::door::strike::Report;
use crate::door::strike::StrikeOptions;

/// How long the leaf must stay closed until a forced opening is over, by the door contract. Whatever
/// the contact does, there is at most one alarm in this time.
pub const FORCED_CLOSED: Duration = Duration::from_secs(30);

/// The leaf's alarms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Leaf {
    pub(in crate::door::strike) open_since: Option<Moment>,
    pub(in crate::door::strike) closed_since: Option<Moment>,
    pub(in crate::door::strike) forced: bool,
    /// It opened without a permit while the exit button was bouncing: alarm unless the button turns
    /// out to be pressed. A push bar works both at once, and the button is the slower of the two.
    pub(in crate::door::strike) doubtful: bool,
    pub(in crate::door::strike) told: Told,
}

/// What was told of a leaf that stands open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::door::strike) enum Told {
    #[default]
    Nothing,
    Warned,
    Held,
}

impl Leaf {
    /// The leaf has opened, or was found open.
    pub fn open(&mut self, since: Moment) {
        self.open_since = Some(since);
        self.closed_since = None;
    }

    /// The leaf has closed, or was found closed.
    pub fn close(&mut self, now: Moment, reports: &mut Vec<Report>) {
        self.open_since = None;
        self.closed_since = Some(now);
        if std::mem::take(&mut self.told) == Told::Held {
            reports.push(Report::HeldOpenCleared);
        }
    }

    /// Nothing permitted the opening so far.
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Somebody leaves: that explains an opening that was in doubt.
    pub fn explain(&mut self) {
        self.doubtful = false;
    }

    /// Raises the alarm for what nobody can explain any more.
    pub fn resolve(&mut self, reports: &mut Vec<Report>) {
        if std::mem::take(&mut self.doubtful) && !self.forced {
            self.forced = true;
            reports.push(Report::ForcedOpen);
        }
    }

    /// What time alone brings about.
    pub fn advance(&mut self, options: &StrikeOptions, now: Moment, reports: &mut Vec<Report>) {
        if self.forced && self.forced_end().is_some_and(|end| end <= now) {
            self.forced = false;
            reports.push(Report::ForcedOpenCleared);
        }
        let (warning, alarm) = self.held_times(options);
        let is_due = |time: Option<Moment>| time.is_some_and(|at| at <= now);
        if self.told < Told::Held && is_due(alarm) {
            self.told = Told::Held;
            reports.push(Report::HeldOpen);
        } else if self.told < Told::Warned && is_due(warning) {
            self.told = Told::Warned;
            reports.push(Report::HeldOpenSoon);
        }
    }

    /// When time alone changes something.
    pub fn deadline(&self, options: &StrikeOptions) -> Option<Moment> {
        let (warning, alarm) = self.held_times(options);
        let forced = self.forced_end().filter(|_| self.forced);
        let pending = [
            forced,
            warning.filter(|_| self.told < Told::Warned),
            alarm.filter(|_| self.told < Told::Held),
        ];
        pending.into_iter().flatten().min()
    }

    pub fn is_forced(&self) -> bool {
        self.forced
    }

    pub fn is_held(&self) -> bool {
        self.told == Told::Held
    }

    fn forced_end(&self) -> Option<Moment> {
        self.closed_since.map(|since| since.plus(FORCED_CLOSED))
    }

    /// When to warn and when to raise the alarm; a warning at the very opening would be none.
    fn held_times(&self, options: &StrikeOptions) -> (Option<Moment>, Option<Moment>) {
        let Some((since, limit)) = self.open_since.zip(options.held_open) else {
            return (None, None);
        };
        let early = limit.saturating_sub(options.pre_alarm);
        let warned = !options.pre_alarm.is_zero() && !early.is_zero();
        (warned.then(|| since.plus(early)), Some(since.plus(limit)))
    }
}
