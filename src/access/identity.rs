//! Whose face a track shows, with a bound on the error: a sequential test over frames. Pure.
//!
//! **What is bounded.** `false_accept_per_attempt` is the false positive identification rate of one
//! attempt: the chance that somebody who is not enrolled is accepted as anybody, however many frames
//! the attempt has. It is a rate, so the same setting holds for 10 and for 10,000 references; what
//! grows with the gallery is the evidence that is asked for.
//!
//! **How.** The model's [`Tail`] turns each cosine into a normal score: standard normal while the
//! people differ. The scores of one person are averaged over the frames; [`crate::face::tail::boundary`]
//! says how improbable a mean is for a stranger, at any look at it. The bound is the sum over all references
//! (whatever their dependence) and over the frames at which an average may begin, [`STARTS`], each
//! of which has a share of the error. So a bad beginning can be left behind, and a person who becomes
//! a candidate late is followed from the next start on.
//!
//! **What is assumed** and checked by figures (`docs/figures.md`), not proved: that the tail was
//! measured on people like those who come, and that frames of one visit are correlated no less than
//! the manifest says. Relatives and twins are no strangers in that sense.
//!
//! No template outlives its frame: what is kept per person are sums.

use std::sync::Arc;

use thiserror::Error;

use crate::face::comparison::Score;
use crate::face::comparison::ScoreMap;
use crate::face::tail::Tail;
use crate::face::tail::boundary::LOOKS;
use crate::gallery::names::PersonId;

/// Candidates of one frame that are looked at: the best of a search of the gallery.
pub const CANDIDATES_MAX: usize = 4;
/// People who are followed at one time, per track; of more the least similar in this frame goes.
pub const FOLLOWED_MAX: usize = 8;
/// Frames of an attempt, 4.3 seconds at 15 a second. Who is still there afterwards makes another
/// attempt, with an error of its own; so somebody else on the same track is not held down for ever by
/// the one before.
pub const ATTEMPT_FRAMES_MAX: u32 = 64;
/// Frames of an attempt, counted from 1, at which averages begin, and the share of the error that
/// each may use. The shares sum to 1.
pub const STARTS: [(u32, f64); 10] = [
    (1, 0.5),
    (2, LATER),
    (4, LATER),
    (8, LATER),
    (16, LATER),
    (24, LATER),
    (32, LATER),
    (40, LATER),
    (48, LATER),
    (56, LATER),
];
/// The share of every start but the first.
const LATER: f64 = 0.5 / 9.0;
/// Frames after which "nobody" is an answer: one bad frame of an enrolled person is no stranger.
pub const NOBODY_FRAMES_MIN: u32 = 3;
/// Least lead of the accepted person over the next one, as a difference of mean cosines.
pub const MARGIN_MIN: f32 = 0.05;

/// One person's similarity to the face of one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Who.
    pub person: PersonId,
    /// Cosine similarity of the best reference, -1 to 1.
    pub cosine: f32,
}

/// What is asked of a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IdentityOptions {
    /// Greatest chance that one attempt of a stranger is accepted as anybody, 0 to 1.
    pub false_accept_per_attempt: f64,
    /// Searchable references of the gallery as it is now.
    pub references: usize,
    /// Least similarity score whatever the evidence, of the mean and of the latest frame.
    pub score_min: Score,
}

/// The options with what the model can say; made anew when the gallery's number of references
/// changes.
#[derive(Clone, Debug)]
pub struct IdentityRules {
    options: IdentityOptions,
    tail: Arc<Tail>,
    score_map: Arc<ScoreMap>,
}

/// The asked rate cannot be promised; nobody is accepted by identity.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error(
    "the embedding model cannot promise at most {asked} false accepts per attempt against \
     {references} references: it can up to {references_max} references, or from {false_accept_min:.1e} on"
)]
pub struct Unsupported {
    /// What the configuration asks for.
    pub asked: f64,
    /// References of the gallery.
    pub references: usize,
    /// References up to which the rate that is asked for can be promised.
    pub references_max: usize,
    /// The smallest rate that can be promised against these references.
    pub false_accept_min: f64,
}

/// What the frames say so far. Every answer but `Accepted` may change with the next frame; and that
/// one too, when later frames disagree.
#[derive(Clone, Debug, PartialEq)]
pub enum IdentityVerdict {
    /// More frames may decide.
    Waiting,
    /// Nobody is more similar than a stranger would be to somebody in such a gallery.
    Nobody,
    /// One person, within the bound.
    Accepted(Acceptance),
    /// The evidence suffices for one person, and another one is too near.
    Ambiguous {
        /// The best.
        first: PersonId,
        /// The next.
        second: PersonId,
    },
}

/// A person and the evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Acceptance {
    /// Who.
    pub person: PersonId,
    /// Upper bound of the chance that one attempt of a stranger gets this far with anybody, 0 to 1.
    pub false_accept: f64,
    /// Mean over the frames.
    pub mean_cosine: f32,
    /// Lead over the next person in mean cosine; `None`: there is nobody else.
    pub margin: Option<f32>,
    /// Frames that it rests on.
    pub frames: u32,
}

/// The test of one track.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdentityTest {
    followed: Vec<Followed>,
    frames: u32,
}

/// What is known of one person's similarity.
#[derive(Clone, Debug, PartialEq)]
struct Followed {
    person: PersonId,
    latest: f32,
    windows: Vec<Window>,
}

/// An average that began at one of the [`STARTS`].
#[derive(Clone, Debug, PartialEq)]
struct Window {
    start: usize,
    frames: u32,
    normal_scores: f64,
    cosines: f64,
    /// Share of the error that the latest look would have needed, per reference.
    chance: f64,
}

impl IdentityRules {
    /// Rules for a model's tail and score map.
    pub fn new(tail: Arc<Tail>, score_map: Arc<ScoreMap>, options: IdentityOptions) -> Self {
        Self { options, tail, score_map }
    }

    /// What was asked for.
    pub fn options(&self) -> IdentityOptions {
        self.options
    }

    /// Whether the model can promise what is asked for. Where it cannot, nobody is accepted.
    pub fn supported(&self) -> Result<(), Unsupported> {
        let rarest = self.rarest();
        let asked = self.options.false_accept_per_attempt;
        let references = self.options.references.max(1);
        let false_accept_min = rarest * references as f64;
        if asked >= false_accept_min {
            return Ok(());
        }
        let references_max = self.references_max();
        Err(Unsupported { asked, references, references_max, false_accept_min })
    }

    /// References up to which the rate that is asked for can be promised.
    pub fn references_max(&self) -> usize {
        (self.options.false_accept_per_attempt / self.rarest()) as usize
    }

    /// The share of the error, per reference, that frames as similar as the tail knows would need
    /// from the first on.
    fn rarest(&self) -> f64 {
        self.tail.boundary().chance_min(self.tail.normal_score_max()) / STARTS[0].1
    }

    fn reaches(&self, cosine: f32) -> bool {
        self.score_map.score(cosine) >= self.options.score_min
    }

    /// The bound for anybody of the gallery, of a chance per reference.
    fn false_accept(&self, chance: f64) -> f64 {
        (chance * self.options.references.max(1) as f64).min(1.0)
    }
}

impl IdentityTest {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one frame: its candidates, best first (at most [`CANDIDATES_MAX`] are looked at).
    /// `known` answers the cosine of a person who is followed already and not among them; `None`
    /// when the person is no longer enrolled, who is then forgotten.
    pub fn see(
        &mut self,
        rules: &IdentityRules,
        candidates: &[Comparison],
        known: &dyn Fn(&PersonId) -> Option<f32>,
    ) {
        let is_over = self.frames >= ATTEMPT_FRAMES_MAX;
        if is_over && !matches!(self.verdict(rules), IdentityVerdict::Accepted(_)) {
            *self = Self::new();
        }
        self.frames = self.frames.saturating_add(1);
        let candidates = &candidates[..candidates.len().min(CANDIDATES_MAX)];
        let listed = |person: &PersonId| {
            candidates.iter().find(|candidate| candidate.person == *person).map(|c| c.cosine)
        };
        self.followed.retain_mut(|followed| {
            let cosine = listed(&followed.person).or_else(|| known(&followed.person));
            cosine.inspect(|cosine| followed.latest = sane(*cosine)).is_some()
        });
        for candidate in candidates {
            if self.followed.iter().all(|followed| followed.person != candidate.person) {
                self.followed.push(Followed::new(candidate));
            }
        }
        self.followed.sort_by(|a, b| b.latest.total_cmp(&a.latest));
        self.followed.truncate(FOLLOWED_MAX);
        let start = STARTS.iter().position(|(frame, _)| *frame == self.frames);
        self.followed.iter_mut().for_each(|followed| followed.see(rules, start));
    }

    /// What the frames say so far.
    pub fn verdict(&self, rules: &IdentityRules) -> IdentityVerdict {
        let Some((best, window)) = self.best() else { return IdentityVerdict::Nobody };
        let false_accept = rules.false_accept(window.chance);
        let reaches = rules.reaches(window.mean_cosine()) && rules.reaches(best.latest);
        let within = false_accept <= rules.options.false_accept_per_attempt;
        if !(within && reaches && rules.supported().is_ok()) {
            let is_nobody = false_accept >= 1.0 && self.frames >= NOBODY_FRAMES_MIN;
            return if is_nobody { IdentityVerdict::Nobody } else { IdentityVerdict::Waiting };
        }
        match self.next(best, window) {
            Some((second, margin)) if margin.is_nan() || margin < MARGIN_MIN => {
                let [first, second] = [best, second].map(|followed| followed.person.clone());
                IdentityVerdict::Ambiguous { first, second }
            }
            _ => IdentityVerdict::Accepted(self.acceptance(rules, best, window)),
        }
    }

    /// The most plausible person so far and how far the evidence goes, accepted or not.
    pub fn leading(&self, rules: &IdentityRules) -> Option<Acceptance> {
        self.best().map(|(best, window)| self.acceptance(rules, best, window))
    }

    fn acceptance(&self, rules: &IdentityRules, best: &Followed, window: &Window) -> Acceptance {
        Acceptance {
            person: best.person.clone(),
            false_accept: rules.false_accept(window.chance),
            mean_cosine: window.mean_cosine(),
            margin: self.next(best, window).map(|(_, margin)| margin),
            frames: window.frames,
        }
    }

    /// The person and the window with the rarest evidence; among equals the greatest mean.
    fn best(&self) -> Option<(&Followed, &Window)> {
        let all = self.followed.iter().flat_map(|f| f.windows.iter().map(move |w| (f, w)));
        all.min_by(|a, b| {
            let mean = |pair: &(&Followed, &Window)| pair.1.mean_cosine();
            a.1.chance.total_cmp(&b.1.chance).then(mean(b).total_cmp(&mean(a)))
        })
    }

    /// Who else is nearest to the face, over the same frames where they are known and else now; with
    /// the lead of the best.
    fn next(&self, best: &Followed, window: &Window) -> Option<(&Followed, f32)> {
        let others = self.followed.iter().filter(|followed| followed.person != best.person);
        let cosine = |other: &Followed| {
            let same = other.windows.iter().find(|own| own.start == window.start);
            same.map_or(other.latest, Window::mean_cosine)
        };
        others
            .map(|other| (other, window.mean_cosine() - cosine(other)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// What no two templates can give is no similarity at all.
fn sane(cosine: f32) -> f32 {
    if (-1.0..=1.0).contains(&cosine) { cosine } else { -1.0 }
}

impl Followed {
    fn new(candidate: &Comparison) -> Self {
        let latest = sane(candidate.cosine);
        Self { person: candidate.person.clone(), latest, windows: Vec::new() }
    }

    fn see(&mut self, rules: &IdentityRules, start: Option<usize>) {
        self.windows.extend(start.map(Window::new));
        let (cosine, normal_score) = (self.latest, rules.tail.normal_score(self.latest));
        self.windows.iter_mut().for_each(|window| window.see(rules, cosine, normal_score));
    }
}

impl Window {
    fn new(start: usize) -> Self {
        Self { start, frames: 0, normal_scores: 0.0, cosines: 0.0, chance: 1.0 }
    }

    fn see(&mut self, rules: &IdentityRules, cosine: f32, normal_score: f64) {
        self.frames = self.frames.saturating_add(1);
        self.normal_scores += normal_score;
        self.cosines += f64::from(cosine);
        if LOOKS.contains(&self.frames) {
            let evidence = rules.tail.boundary().evidence(self.frames, self.normal_scores);
            self.chance = rules.tail.boundary().chance(evidence) / STARTS[self.start].1;
        }
    }

    fn mean_cosine(&self) -> f32 {
        (self.cosines / f64::from(self.frames.max(1))) as f32
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;
    use crate::eval::random::SplitMix;
    use crate::face::tail::TailEntry;
    use crate::face::tail::upper_tail;

    const CORRELATION: f64 = 0.8;

    /// A tail whose normal score is ten times the cosine, up to `deepest`.
    fn tail(deepest: i32) -> Arc<Tail> {
        let knot = |step: i32| {
            let score = f64::from(step) / 10.0;
            [step as f32 / 100.0, upper_tail(score).log10() as f32]
        };
        Arc::new(
            Tail::new(TailEntry {
                knots: (-40..=deepest * 10).map(knot).collect(),
                correlation: CORRELATION,
                comparisons: 1_000_000_000_000,
            })
            .unwrap(),
        )
    }

    fn rules_with(
        tail: Arc<Tail>,
        false_accept: f64,
        references: usize,
        score: f32,
    ) -> IdentityRules {
        let map = ScoreMap::new(vec![[0.0, 0.0], [1.0, 1.0]]).unwrap();
        let score_min = Score::new(score).unwrap();
        let options =
            IdentityOptions { false_accept_per_attempt: false_accept, references, score_min };
        IdentityRules::new(tail, Arc::new(map), options)
    }

    fn rules(false_accept: f64, references: usize) -> IdentityRules {
        rules_with(tail(6), false_accept, references, 0.0)
    }

    fn id(number: usize) -> PersonId {
        PersonId::new(&format!("p{number}")).unwrap()
    }

    fn comparison(number: usize, cosine: f32) -> Comparison {
        Comparison { person: id(number), cosine }
    }

    /// Shows the test one frame against a gallery of cosines.
    fn show(test: &mut IdentityTest, rules: &IdentityRules, gallery: &[f32]) {
        let mut all: Vec<Comparison> =
            gallery.iter().enumerate().map(|(at, cosine)| comparison(at, *cosine)).collect();
        let known = |person: &PersonId| {
            (0..gallery.len()).find(|at| id(*at) == *person).map(|at| gallery[at])
        };
        all.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
        test.see(rules, &all[..all.len().min(CANDIDATES_MAX)], &known);
    }

    fn after(rules: &IdentityRules, frames: &[&[f32]]) -> IdentityVerdict {
        let mut test = IdentityTest::new();
        for gallery in frames {
            show(&mut test, rules, gallery);
        }
        test.verdict(rules)
    }

    fn repeated(rules: &IdentityRules, gallery: &[f32], frames: usize) -> IdentityVerdict {
        after(rules, &vec![gallery; frames])
    }

    fn accepted(verdict: &IdentityVerdict) -> Option<&Acceptance> {
        match verdict {
            IdentityVerdict::Accepted(acceptance) => Some(acceptance),
            _ => None,
        }
    }

    #[test]
    fn the_shares_of_the_starts_are_one_error() {
        let sum: f64 = STARTS.iter().map(|(_, share)| share).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    }

    #[test]
    fn an_easy_face_is_accepted_at_once_and_a_harder_one_after_some_frames() {
        let rules = rules(1e-3, 100);
        let easy = after(&rules, &[&[0.55, 0.1]]);
        let acceptance = accepted(&easy).unwrap();
        assert_eq!((acceptance.person.clone(), acceptance.frames), (id(0), 1));
        assert!(acceptance.false_accept <= 1e-3 && acceptance.margin.unwrap() > 0.4);
        let hard: &[f32] = &[0.46, 0.1];
        assert_eq!(after(&rules, &[hard]), IdentityVerdict::Waiting);
        let patient = repeated(&rules, hard, 16);
        assert!(accepted(&patient).is_some_and(|a| a.frames > 1), "{patient:?}");
        assert_eq!(repeated(&rules, &[0.3, 0.1], 64), IdentityVerdict::Waiting);
        assert_eq!(repeated(&rules, &[0.1, 0.1], 3), IdentityVerdict::Nobody);
        assert_eq!(after(&rules, &[]), IdentityVerdict::Nobody);
    }

    #[test]
    fn a_larger_gallery_asks_for_more_evidence() {
        let face: &[f32] = &[0.52, 0.1];
        assert!(accepted(&after(&rules(1e-3, 10), &[face])).is_some());
        assert!(accepted(&after(&rules(1e-3, 100_000), &[face])).is_none());
        assert!(accepted(&repeated(&rules(1e-3, 10_000), face, 32)).is_some());
    }

    #[test]
    fn a_bad_beginning_is_left_behind() {
        let rules = rules(1e-3, 100);
        let [bad, good]: [&[f32]; 2] = [&[-0.3, 0.1], &[0.58, 0.1]];
        let frames = [bad, bad, bad, good, good, good];
        let verdict = after(&rules, &frames);
        // Of the average that began at the fourth frame.
        assert_eq!(accepted(&verdict).map(|acceptance| acceptance.frames), Some(3), "{verdict:?}");
    }

    #[test]
    fn who_comes_after_somebody_else_is_recognised_in_the_next_attempt() {
        let rules = rules(1e-3, 100);
        let mut test = IdentityTest::new();
        (0..ATTEMPT_FRAMES_MAX + 5).for_each(|_| show(&mut test, &rules, &[0.1, 0.0]));
        assert_eq!(test.verdict(&rules), IdentityVerdict::Nobody);
        (0..8).for_each(|_| show(&mut test, &rules, &[0.0, 0.58]));
        let verdict = test.verdict(&rules);
        assert_eq!(accepted(&verdict).map(|a| a.person.clone()), Some(id(1)), "{verdict:?}");
        // An acceptance lasts longer than an attempt.
        (0..3 * ATTEMPT_FRAMES_MAX).for_each(|_| {
            show(&mut test, &rules, &[0.0, 0.58]);
            assert!(accepted(&test.verdict(&rules)).is_some());
        });
    }

    #[test]
    fn an_acceptance_lapses_when_the_face_changes() {
        let rules = rules_with(tail(6), 1e-3, 100, 0.3);
        let mut test = IdentityTest::new();
        show(&mut test, &rules, &[0.58, 0.0]);
        assert!(accepted(&test.verdict(&rules)).is_some());
        show(&mut test, &rules, &[0.0, 0.1]);
        assert!(accepted(&test.verdict(&rules)).is_none(), "the latest frame is below the floor");
    }

    #[test]
    fn the_floor_holds_whatever_the_evidence() {
        let face: &[f32] = &[0.58, 0.0];
        assert!(accepted(&after(&rules_with(tail(6), 1e-3, 10, 0.57), &[face])).is_some());
        assert!(accepted(&repeated(&rules_with(tail(6), 1e-3, 10, 0.59), face, 20)).is_none());
    }

    #[test]
    fn two_people_who_are_alike_are_ambiguous() {
        let rules = rules(1e-3, 100);
        let verdict = after(&rules, &[&[0.58, 0.56, 0.0]]);
        assert_eq!(verdict, IdentityVerdict::Ambiguous { first: id(0), second: id(1) });
        assert!(accepted(&after(&rules, &[&[0.58, 0.50, 0.0]])).is_some());
    }

    #[test]
    fn whoever_is_no_longer_enrolled_is_forgotten() {
        let rules = rules(1e-3, 100);
        let mut test = IdentityTest::new();
        test.see(&rules, &[comparison(0, 0.58)], &|_| None);
        assert!(accepted(&test.verdict(&rules)).is_some());
        test.see(&rules, &[], &|_| None);
        assert_eq!(test.verdict(&rules), IdentityVerdict::Nobody);
        assert_eq!(test.leading(&rules), None);
    }

    #[test]
    fn what_the_tail_cannot_show_is_refused_with_the_way_out() {
        // A tail that was measured to a normal score of 4, and goes on for two decades to 5, gives at
        // most 5 / sqrt(0.8) = 5.6: about 1 in 90 million at a single look.
        let shallow = |references| rules_with(tail(4), 1e-3, references, 0.0);
        let few = shallow(10);
        assert_eq!(few.supported(), Ok(()));
        let many = shallow(100_000);
        let unsupported = many.supported().unwrap_err();
        assert!(unsupported.references_max >= 10 && unsupported.references_max < 100_000);
        assert_eq!(shallow(unsupported.references_max).supported(), Ok(()));
        assert!(shallow(unsupported.references_max + 2).supported().is_err());
        let text = unsupported.to_string();
        assert!(text.contains(&unsupported.references_max.to_string()), "{text}");
        assert!(accepted(&repeated(&many, &[0.99, 0.0], 128)).is_none());
        assert!(accepted(&repeated(&few, &[0.99, 0.0], 8)).is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_least_similar_go() {
        let rules = rules(1e-3, 1000);
        let mut test = IdentityTest::new();
        let known = |_: &PersonId| Some(0.2);
        for frame in 0..60 {
            let new: Vec<Comparison> =
                (0..6).map(|at| comparison(frame * 6 + at, 0.3 - at as f32 * 0.01)).collect();
            test.see(&rules, &new, &known);
            assert!(test.followed.len() <= FOLLOWED_MAX);
            assert!(test.followed.iter().all(|followed| followed.windows.len() <= STARTS.len()));
        }
        assert!(test.followed.iter().any(|followed| followed.latest > 0.25));
    }

    /// Strangers whose frames are correlated as the rules assume: at most as many are accepted as
    /// the rate that was asked for, and not so few that the test would be of no use.
    #[test]
    fn simulated_strangers_are_accepted_at_most_as_often_as_asked() {
        const ATTEMPTS: usize = 4000;
        const REFERENCES: usize = 20;
        const FRAMES: usize = 40;
        for (correlation, asked) in [(CORRELATION, 0.05), (0.95, 0.05), (CORRELATION, 0.01)] {
            let rules = rules(asked, REFERENCES);
            let random = RefCell::new(SplitMix::new(11));
            let normal = || random.borrow_mut().normal();
            let mut wrong = 0;
            for _ in 0..ATTEMPTS {
                let lasting: Vec<f64> = (0..REFERENCES).map(|_| normal()).collect();
                let mut test = IdentityTest::new();
                wrong += u32::from((0..FRAMES).any(|_| {
                    let frame: Vec<f32> = lasting
                        .iter()
                        .map(|own| own * correlation.sqrt() + normal() * (1.0 - correlation).sqrt())
                        .map(|score| (score / 10.0) as f32)
                        .collect();
                    show(&mut test, &rules, &frame);
                    let verdict = test.verdict(&rules);
                    !matches!(verdict, IdentityVerdict::Waiting | IdentityVerdict::Nobody)
                }));
            }
            let rate = f64::from(wrong) / ATTEMPTS as f64;
            assert!(rate <= asked, "{correlation}: {rate} instead of {asked}");
            assert!(rate >= asked / 12.0, "{correlation}: {rate} for {asked}");
        }
    }

    proptest! {
        /// More similarity never speaks against a person.
        #[test]
        fn evidence_grows_with_similarity(
            cosines in prop::collection::vec(-0.5_f32..0.7, 1..40),
            better in 0.0_f32..0.3,
        ) {
            let rules = rules(1e-3, 100);
            let bound = |more: f32| {
                let mut test = IdentityTest::new();
                for cosine in &cosines {
                    show(&mut test, &rules, &[cosine + more]);
                }
                test.leading(&rules).map(|leading| leading.false_accept)
            };
            prop_assert!(bound(better) <= bound(0.0).map(|bound| bound * 1.000_001));
        }

        #[test]
        fn no_input_panics_or_is_accepted_on_nonsense(
            frames in prop::collection::vec(
                prop::collection::vec((0_usize..6, prop_oneof![
                    Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), -2.0_f32..0.3,
                ]), 0..7),
                0..140,
            ),
        ) {
            let rules = rules_with(tail(6), 1e-3, 100, 0.5);
            let mut test = IdentityTest::new();
            for frame in frames {
                let candidates: Vec<Comparison> =
                    frame.iter().map(|(at, cosine)| comparison(*at, *cosine)).collect();
                test.see(&rules, &candidates, &|_| None);
                prop_assert!(accepted(&test.verdict(&rules)).is_none());
            }
        }
    }
}
