//! Counts of what the liveness check said, and the rates of ISO/IEC 30107-3 that they amount to.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::eval::rate::Rate;
use crate::face::liveness::Cue;
use crate::face::liveness::LivenessReason;
use crate::face::liveness::LivenessReport;

/// What the check said of one picture, and how long it took.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The outcome.
    pub report: LivenessReport,
    /// Time of the check, detection apart.
    pub time: Duration,
}

/// The word on liveness that a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Classified as bona fide.
    BonaFide,
    /// Classified as an attack.
    Attack,
    /// None: the check ended before, for this reason.
    Absent(LivenessReason),
}

/// The word on liveness of an outcome.
pub fn response(report: &LivenessReport) -> Response {
    match report.failure {
        None => Response::BonaFide,
        Some(LivenessReason::FaceNotLive) => Response::Attack,
        Some(reason) => Response::Absent(reason),
    }
}

/// The outcomes of presentations of one kind: a group of bona fide ones, or a species of attacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    presentations: u64,
    as_bona_fide: u64,
    as_attack: u64,
    reasons: BTreeMap<LivenessReason, u64>,
    /// Calibrated scores of those with a response.
    scores: Vec<f32>,
}

impl Tally {
    /// Counts one presentation.
    pub fn add(&mut self, report: &LivenessReport) {
        self.presentations += 1;
        if let Some(reason) = report.failure {
            *self.reasons.entry(reason).or_default() += 1;
        }
        let (counter, score) = match response(report) {
            Response::BonaFide => (&mut self.as_bona_fide, 1.0),
            Response::Attack => (&mut self.as_attack, 0.0),
            Response::Absent(_) => return,
        };
        *counter += 1;
        self.scores.push(report.pad_score.unwrap_or(score));
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.presentations += other.presentations;
        self.as_bona_fide += other.as_bona_fide;
        self.as_attack += other.as_attack;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(*reason).or_default() += count;
        }
        self.scores.extend(&other.scores);
        self
    }

    /// How many there were.
    pub fn presentations(&self) -> u64 {
        self.presentations
    }

    /// Of those with a response, those classified as bona fide: of attacks, the APCER.
    pub fn classified_bona_fide(&self) -> Rate {
        Rate::of(self.as_bona_fide, self.responses())
    }

    /// Of those with a response, those classified as attacks: of bona fide ones, the BPCER.
    pub fn classified_attack(&self) -> Rate {
        Rate::of(self.as_attack, self.responses())
    }

    /// Those without a response: APNRR or BPNRR.
    pub fn non_responses(&self) -> Rate {
        Rate::of(self.presentations - self.responses(), self.presentations)
    }

    /// Of all, those that passed the whole check.
    pub fn passed(&self) -> Rate {
        Rate::of(self.as_bona_fide, self.presentations)
    }

    /// The reasons of refusals, as shares of all presentations, in the order of the tests.
    pub fn reasons(&self) -> impl Iterator<Item = (LivenessReason, Rate)> {
        self.reasons.iter().map(|(reason, count)| (*reason, Rate::of(*count, self.presentations)))
    }

    /// Of all, those refused for this reason.
    pub fn refused_for(&self, reason: LivenessReason) -> Rate {
        Rate::of(self.reasons.get(&reason).copied().unwrap_or(0), self.presentations)
    }

    /// Of all, those refused for any other reason than this.
    pub fn refused_otherwise(&self, reason: LivenessReason) -> Rate {
        let others = self.other_reasons(reason);
        Rate::of(others.iter().map(|(_, count)| count).sum(), self.presentations)
    }

    /// The other reasons than this with how often they were answered, in the order of the tests.
    pub fn other_reasons(&self, reason: LivenessReason) -> Vec<(LivenessReason, u64)> {
        let others = self.reasons.iter().filter(|(other, _)| **other != reason);
        others.map(|(other, count)| (*other, *count)).collect()
    }

    /// Calibrated scores of those with a response, in no order.
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    fn responses(&self) -> u64 {
        self.as_bona_fide + self.as_attack
    }
}

/// What one cue did to presentations of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Refusals {
    measured: u64,
    refused: u64,
    alone: u64,
    alone_unsure: u64,
}

/// What one cue contributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// Of the presentations for which it was measured, those that it refused.
    pub refused: Rate,
    /// Of the same, those that it alone refused: every other measured cue passed.
    pub alone: Rate,
    /// How many of those that it alone refused left another cue unmeasured, which might have
    /// refused as well.
    pub alone_unsure: u64,
}

/// Who presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A person who is there.
    BonaFide,
    /// An attack.
    Attack,
}

/// What every cue contributes, whichever there are.
#[derive(Clone, Debug, Default)]
pub struct Cues {
    refusals: BTreeMap<(Cue, Who), Refusals>,
    limits: BTreeMap<Cue, (f32, f32)>,
}

impl Cues {
    /// Counts over all outcomes.
    pub fn of<'a>(outcomes: impl Iterator<Item = (Who, &'a LivenessReport)> + Clone) -> Self {
        let all: BTreeSet<Cue> = outcomes
            .clone()
            .flat_map(|(_, report)| report.findings.iter().map(|f| f.cue))
            .collect();
        let mut own = Self::default();
        for (who, report) in outcomes {
            own.add(who, report, &all);
        }
        own
    }

    fn add(&mut self, who: Who, report: &LivenessReport, all: &BTreeSet<Cue>) {
        let failed = report.findings.iter().filter(|finding| !finding.pass).count();
        let measured: BTreeSet<Cue> = report.findings.iter().map(|finding| finding.cue).collect();
        for finding in &report.findings {
            let refusals = self.refusals.entry((finding.cue, who)).or_default();
            let alone = !finding.pass && failed == 1;
            refusals.measured += 1;
            refusals.refused += u64::from(!finding.pass);
            refusals.alone += u64::from(alone);
            refusals.alone_unsure += u64::from(alone && measured != *all);
            let limits = self.limits.entry(finding.cue).or_insert((finding.limit, finding.limit));
            *limits = (limits.0.min(finding.limit), limits.1.max(finding.limit));
        }
    }

    /// The cues that were measured, in the order of the tests, each with its least score that
    /// passes: the lowest and the highest that was applied.
    pub fn limits(&self) -> impl Iterator<Item = (Cue, (f32, f32))> {
        self.limits.iter().map(|(cue, limits)| (*cue, *limits))
    }

    /// What a cue did to one kind of presentations.
    pub fn contribution(&self, cue: Cue, who: Who) -> Contribution {
        let found = self.refusals.get(&(cue, who)).copied().unwrap_or_default();
        Contribution {
            refused: Rate::of(found.refused, found.measured),
            alone: Rate::of(found.alone, found.measured),
            alone_unsure: found.alone_unsure,
        }
    }
}

/// The median time of those checks that measured every cue, and how many they were.
pub fn median_ms<'a>(judgements: impl Iterator<Item = &'a Judgement>) -> Option<(f64, usize)> {
    let judgements: Vec<&Judgement> = judgements.collect();
    let longest = judgements.iter().map(|judgement| judgement.report.findings.len()).max()?;
    let complete =
        |judgement: &&&Judgement| longest > 0 && judgement.report.findings.len() == longest;
    let mut times: Vec<Duration> =
        judgements.iter().filter(complete).map(|judgement| judgement.time).collect();
    times.sort();
    let median = times.get(times.len() / 2)?;
    Some((median.as_secs_f64() * 1000.0, times.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::liveness::Finding;

    /// Scores of cues with the limit 0.5.
    fn report(findings: &[(Cue, f32)]) -> LivenessReport {
        let findings = findings.iter().map(|&(cue, score)| Finding::new(cue, score, 0.5));
        LivenessReport::of(findings.collect(), None)
    }

    fn tally(reports: &[LivenessReport]) -> Tally {
        reports.iter().fold(Tally::default(), |mut tally, report| {
            tally.add(report);
            tally
        })
    }

    #[test]
    fn rates_are_those_counted_by_hand() {
        use LivenessReason as R;
        let reports = [
            report(&[(Cue::Pad, 0.9)]),
            report(&[(Cue::Pad, 0.5)]),
            report(&[(Cue::Pad, 0.4)]),
            report(&[(Cue::Pad, 0.9), (Cue::Moire, 0.1)]),
            report(&[(Cue::Pad, f32::NAN)]),
            report(&[(Cue::Pose, 0.1)]),
            LivenessReport::refused(R::FaceTooSmall),
            LivenessReport::refused(R::FaceTooSmall),
            LivenessReport::refused(R::UnknownError),
        ];
        let found = tally(&reports);
        assert_eq!(found.presentations(), 9);
        assert_eq!(found.classified_bona_fide(), Rate::of(2, 5));
        assert_eq!(found.classified_attack(), Rate::of(3, 5));
        assert_eq!(found.non_responses(), Rate::of(4, 9));
        assert_eq!(found.passed(), Rate::of(2, 9));
        let expected = [
            (R::FaceTooSmall, Rate::of(2, 9)),
            (R::FaceAngleTooLarge, Rate::of(1, 9)),
            (R::FaceNotLive, Rate::of(3, 9)),
            (R::UnknownError, Rate::of(1, 9)),
        ];
        assert_eq!(found.reasons().collect::<Vec<_>>(), expected);
        assert_eq!(found.refused_for(R::FaceTooSmall), Rate::of(2, 9));
        assert_eq!(found.refused_otherwise(R::FaceTooSmall), Rate::of(5, 9));
        assert_eq!(found.scores().len(), 5, "non-responses have no score");
        let below = found.scores().iter().filter(|score| **score < 0.5).count();
        assert_eq!(below, 3, "the operating point is 0.5: {:?}", found.scores());
        assert_eq!(tally(&reports[..4]).plus(&tally(&reports[4..])).reasons, found.reasons);
        assert_eq!(Tally::default().classified_bona_fide().to_string(), "no trials");
    }

    #[test]
    fn a_cue_is_credited_with_what_it_alone_refuses() {
        let live = report(&[(Cue::Pad, 0.9), (Cue::Moire, 0.9)]);
        let by_pad = report(&[(Cue::Pad, 0.1), (Cue::Moire, 0.9)]);
        let by_both = report(&[(Cue::Pad, 0.1), (Cue::Moire, 0.1)]);
        let by_moire = report(&[(Cue::Pad, 0.8), (Cue::Moire, 0.1)]);
        let stopped = report(&[(Cue::Pad, 0.2)]);
        let outcomes = [
            (Who::Attack, &by_pad),
            (Who::Attack, &by_both),
            (Who::Attack, &by_moire),
            (Who::Attack, &stopped),
            (Who::Attack, &live),
            (Who::BonaFide, &live),
            (Who::BonaFide, &by_moire),
        ];
        let cues = Cues::of(outcomes.into_iter());
        let of = |refused, alone, measured, alone_unsure| Contribution {
            refused: Rate::of(refused, measured),
            alone: Rate::of(alone, measured),
            alone_unsure,
        };
        assert_eq!(cues.contribution(Cue::Pad, Who::Attack), of(3, 2, 5, 1));
        assert_eq!(cues.contribution(Cue::Moire, Who::Attack), of(2, 1, 4, 0));
        assert_eq!(cues.contribution(Cue::Pad, Who::BonaFide), of(0, 0, 2, 0));
        assert_eq!(cues.contribution(Cue::Moire, Who::BonaFide), of(1, 1, 2, 0));
        assert_eq!(cues.contribution(Cue::Eyes, Who::Attack), of(0, 0, 0, 0));
        assert_eq!(cues.limits().map(|(cue, _)| cue).collect::<Vec<_>>(), [Cue::Pad, Cue::Moire]);
    }

    #[test]
    fn the_median_is_that_of_checks_that_went_to_the_end() {
        let judged =
            |report: LivenessReport, ms| Judgement { report, time: Duration::from_millis(ms) };
        let whole = || report(&[(Cue::Pose, 0.9), (Cue::Pad, 0.9)]);
        let judgements = [
            judged(whole(), 30),
            judged(whole(), 10),
            judged(whole(), 20),
            judged(report(&[(Cue::Pose, 0.1)]), 1),
            judged(LivenessReport::refused(LivenessReason::FaceNotFound), 0),
        ];
        assert_eq!(median_ms(judgements.iter()), Some((20.0, 3)));
        assert_eq!(median_ms(judgements[4..].iter()), None, "nothing was measured");
        assert_eq!(median_ms([].iter()), None);
    }
}
