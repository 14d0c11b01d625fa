//! What a search tells about templates to those who may not know them: a returned score is an
//! oracle. Who sees it to the last digit, or may choose the threshold that finely, can change a
//! picture little by little and keep what raises it, until it passes for a person never seen
//! (hill climbing; Galbally, `McCool` et al., Pattern Recognition 43, 2010).
//!
//! So keys without `admin` see scores in hundredths, rounded down, and their thresholds are rounded
//! up to hundredths: a score that was answered can still be sent back as a threshold, and no
//! threshold tells more than the score. Their probes that come close to a match without being one
//! are counted, and a key with too many of them learns for a while only who matches by the usual
//! threshold: a climber has nothing to climb by, and a panel that has but one key goes on working.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::clock::Moment;
use crate::face::comparison::Score;
use crate::store::Scope;
use crate::telemetry::Metrics;
use crate::telemetry::door::KeyFault;
use crate::web::auth::Holder;
use crate::web::error::ApiError;
use crate::web::forms::least_score;
use crate::web::keys::KEYS_MAX;

/// A probe this little below the threshold is a near miss. Wide enough that a climber has to pass
/// through it in many steps; strangers reach it seldom in a small collection and often in one of
/// thousands, which is why [`NEAR_MISSES_MAX`] is generous.
pub const NEAR_BAND: f32 = 0.1;
/// Near misses of one key within [`WINDOW`]. A busy entrance has one stranger in five seconds;
/// climbing takes thousands of probes, and at this rate days.
pub const NEAR_MISSES_MAX: u32 = 120;
/// See [`NEAR_MISSES_MAX`].
pub const WINDOW: Duration = Duration::from_secs(600);
/// How long a key is throttled. What went before still counts afterwards, so within the window every
/// further near miss costs another pause.
pub const PAUSE: Duration = Duration::from_secs(60);

/// The steps in which scores are shown and thresholds are taken.
const STEPS: f32 = 100.0;
/// Hundredths are not exact in `f32`: what is this close to one, in steps, is that hundredth.
const STEP_SLACK: f32 = 1e-4;

/// How finely a caller sees scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// To the last digit: administrators.
    Exact,
    /// In hundredths: everybody else.
    Hundredths,
}

impl Precision {
    /// What the holder of a request may see.
    pub fn of(holder: &Holder) -> Self {
        if holder.is_admin() { Self::Exact } else { Self::Hundredths }
    }

    /// A score as it is shown: never above what it is.
    pub fn shown(self, score: f32) -> f32 {
        match self {
            Self::Exact => score,
            Self::Hundredths => (score * STEPS + STEP_SLACK).floor() / STEPS,
        }
    }

    /// A threshold as it is used: never below what was asked for.
    pub fn least(self, asked: Score) -> Score {
        let rounded = match self {
            Self::Exact => return asked,
            Self::Hundredths => (asked.value() * STEPS - STEP_SLACK).ceil().max(0.0) / STEPS,
        };
        Score::new(rounded).unwrap_or(asked)
    }
}

/// Whether the best score of a probe is close below the threshold. The threshold that counts is at
/// least the usual one: a caller who asks for less is told the score itself, and climbs by it.
pub fn is_near_miss(best: Score, least: Score) -> bool {
    let bar = bar(least).value();
    (bar - NEAR_BAND..bar).contains(&best.value())
}

/// The least score that has to be known to tell near misses apart.
pub fn near_floor(least: Score) -> Score {
    let floor = (bar(least).value() - NEAR_BAND).clamp(0.0, least.value());
    Score::new(floor).unwrap_or(least)
}

fn bar(least: Score) -> Score {
    let usual = least_score(None, None);
    if least < usual { usual } else { least }
}

/// What the holder of a request may learn now.
#[derive(Clone, Copy, Debug)]
pub struct Throttle(Option<Duration>);

impl Throttle {
    /// The threshold that is answered by: while throttled, at least the usual one.
    pub fn least(self, asked: Score) -> Score {
        if self.0.is_some() { bar(asked) } else { asked }
    }

    /// To be called where an answer would tell what lies below [`Self::least`], or that nothing lies
    /// above it to a caller who asked for less: a refusal that depends on nothing else.
    pub fn check(self, metrics: &Metrics) -> Result<(), ApiError> {
        let Some(wait) = self.0 else { return Ok(()) };
        metrics.key_fault(KeyFault::Throttled);
        Err(ApiError::too_many(wait))
    }
}

/// The near misses of every key; one for the service.
#[derive(Default)]
pub struct NearMisses(Mutex<HashMap<String, Count>>);

#[derive(Clone, Copy)]
struct Count {
    /// Beginning of the window.
    began: Moment,
    misses: u32,
    paused_until: Option<Moment>,
}

impl NearMisses {
    /// Whether the holder is throttled now. Administrators and the local socket never are: they see
    /// every score anyway.
    pub fn throttle(&self, holder: &Holder, now: Moment) -> Throttle {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = watched(holder).and_then(|key| counts.get(key));
        let until = count.and_then(|count| count.paused_until).filter(|until| now < *until);
        Throttle(until.map(|until| until.since(now)))
    }

    /// Counts near misses of a probe; every one too many begins a pause. During a pause they tell
    /// nothing and do not count.
    pub fn note(&self, holder: &Holder, misses: u32, now: Moment, metrics: &Metrics) {
        let Some(key) = watched(holder).filter(|_| misses > 0) else { return };
        if self.throttle(holder, now).0.is_some() {
            return;
        }
        (0..misses).for_each(|_| metrics.key_fault(KeyFault::NearMiss));
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= KEYS_MAX && !counts.contains_key(key) {
            // Keys that were revoked leave counts behind; whose window has passed counts nothing.
            counts.retain(|_, count| now.since(count.began) <= WINDOW);
        }
        let fresh = Count { began: now, misses: 0, paused_until: None };
        let count = counts.entry(key.to_string()).or_insert(fresh);
        if now.since(count.began) > WINDOW {
            *count = fresh;
        }
        count.misses = count.misses.saturating_add(misses);
        if count.misses > NEAR_MISSES_MAX {
            count.paused_until = Some(now.plus(PAUSE));
            tracing::warn!(key, "a key probes close to the threshold again and again");
        }
    }
}

/// The id of a key that is watched.
fn watched(holder: &Holder) -> Option<&str> {
    match holder {
        Holder::Key(record) if !record.scopes.contains(&Scope::Admin) => Some(&record.id),
        Holder::Key(_) | Holder::LocalSocket | Holder::Anyone => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::UtcTime;
    use crate::store::KeyRecord;

    fn key(id: &str, scope: Scope) -> Holder {
        Holder::Key(Arc::new(KeyRecord {
            id: id.to_string(),
            name: String::new(),
            sha256: [0; 32],
            scopes: vec![scope],
            created: UtcTime::from_millis(0),
        }))
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn scores_are_shown_in_hundredths_and_thresholds_are_never_loosened() {
        let own = Precision::Hundredths;
        let table = [(0.7, 0.7), (0.67, 0.67), (0.699_99, 0.69), (0.83, 0.83), (1.0, 1.0)];
        for (score, shown) in table {
            assert_eq!(own.shown(score), shown, "{score}");
        }
        let least = |asked| own.least(Score::new(asked).unwrap()).value();
        let table = [(0.7, 0.7), (0.67, 0.67), (0.701, 0.71), (0.995, 1.0), (0.0, 0.0), (1.0, 1.0)];
        for (asked, used) in table {
            assert_eq!(least(asked), used, "{asked}");
        }
        assert_eq!(Precision::Exact.shown(0.123_456), 0.123_456);
    }

    proptest! {
        /// What was answered can be sent back, and finds the same person again.
        #[test]
        fn a_shown_score_is_a_threshold_that_the_score_reaches(score in 0.0_f32..=1.0) {
            let own = Precision::Hundredths;
            let shown = own.shown(score);
            let back = own.least(Score::new(shown).unwrap());
            prop_assert!(back.value() == shown && shown <= score + 2.0 * STEP_SLACK / STEPS);
        }
    }

    #[test]
    fn near_is_a_band_below_the_threshold_or_the_usual_one() {
        let near =
            |best, least| is_near_miss(Score::new(best).unwrap(), Score::new(least).unwrap());
        let table = [
            (0.69, 0.7, true),
            (0.61, 0.7, true),
            (0.59, 0.7, false),
            (0.7, 0.7, false),
            (0.85, 0.9, true),
            (0.75, 0.9, false),
            // A caller who is told everything climbs by the score.
            (0.65, 0.0, true),
            (0.3, 0.0, false),
        ];
        for (best, least, expected) in table {
            assert_eq!(near(best, least), expected, "{best} {least}");
        }
        let floor = |least| near_floor(Score::new(least).unwrap()).value();
        assert_eq!((floor(0.0), floor(0.7) < 0.601, floor(0.65) < 0.601), (0.0, true, true));
    }

    #[test]
    fn a_key_with_too_many_near_misses_waits_alone() {
        let (misses, metrics) = (NearMisses::default(), Metrics::new("0"));
        let climber = key("climber", Scope::Search);
        for _ in 0..NEAR_MISSES_MAX {
            misses.note(&climber, 1, at(10), &metrics);
        }
        let check = |holder: &Holder, now| misses.throttle(holder, now).check(&metrics);
        assert!(check(&climber, at(10)).is_ok());
        misses.note(&climber, 1, at(11), &metrics);
        let refused = check(&climber, at(12)).unwrap_err().into_response();
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "59");
        assert!(check(&key("other", Scope::Search), at(12)).is_ok());
        let score = |value| Score::new(value).unwrap();
        let throttled = misses.throttle(&climber, at(12));
        assert_eq!(throttled.least(score(0.2)), score(0.7));
        assert_eq!(throttled.least(score(0.8)), score(0.8));
        // What a pause hides does not count; what went before it does until the window ends.
        misses.note(&climber, 50, at(12), &metrics);
        let free = misses.throttle(&climber, at(71));
        assert!(free.check(&metrics).is_ok() && free.least(score(0.2)) == score(0.2));
        misses.note(&climber, 1, at(72), &metrics);
        assert!(misses.throttle(&climber, at(73)).0.is_some());
        misses.note(&climber, 1, at(10 + WINDOW.as_secs() + 1), &metrics);
        assert!(misses.throttle(&climber, at(10 + WINDOW.as_secs() + 2)).0.is_none());
        let text = metrics.render();
        assert!(text.contains("key_faults_total{fault=\"near_miss\"} 123"), "{text}");
        assert!(text.contains("key_faults_total{fault=\"throttled\"} 1"), "{text}");
    }

    #[test]
    fn old_near_misses_and_those_of_administrators_do_not_count() {
        let (misses, metrics) = (NearMisses::default(), Metrics::new("0"));
        let kiosk = key("kiosk", Scope::Search);
        misses.note(&kiosk, NEAR_MISSES_MAX, at(0), &metrics);
        misses.note(&kiosk, 1, at(WINDOW.as_secs() + 1), &metrics);
        assert!(misses.throttle(&kiosk, at(WINDOW.as_secs() + 2)).0.is_none());
        for holder in [key("a", Scope::Admin), Holder::LocalSocket] {
            misses.note(&holder, 1000, at(0), &metrics);
            assert!(misses.throttle(&holder, at(0)).0.is_none());
        }
    }
}
