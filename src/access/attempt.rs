//! One event per person who stands there, not thirty a second. Pure: time is an argument.
//!
//! Faces are joined over frames into tracks by [`crate::face::track`]: enough to tell "still there"
//! from "somebody new" without keeping anything of a stranger but a rectangle and a few numbers. What
//! is known by name is kept by name: a person who was reported is reported again only after the
//! cool-down without being seen, wherever the face shows up and however often its track breaks.
//!
//! A frame is judged in two steps. [`Attempts::lookout`] says which face is whose track and which
//! shots are worth the networks' time; [`Attempts::observe`] takes what they answered. Who it is is
//! the sequential test's decision ([`crate::access::identity`]); whether the face is live, that of
//! the track's frames together ([`crate::access::agreement`]).
//!
//! What is promised, whatever the input:
//! - at most one `match`, one `denied` and one `spoof_suspected` per person and cool-down, and no
//!   `denied` after a `match`;
//! - at most one `unknown_face`, one `spoof_suspected` and one `denied` of a stranger per track;
//! - with liveness required, a `match` only on a frame whose face was found live, in a track whose
//!   frames agree on it;
//! - a face that may yet turn out to be somebody enrolled is not called unknown meanwhile;
//! - a face that never came near, that nobody took for anybody, or that did not look at the camera
//!   causes no `denied`;
//! - bounded memory; time that runs backwards counts as standing still.

pub mod judge;
pub mod lookout;
pub mod observation;
pub mod reports;
pub mod standing;

use std::{collections::HashMap, time::Duration};

use crate::access::attempt::lookout::Lookout;
use crate::access::attempt::observation::Identification;
use crate::access::attempt::observation::Outcome;
use crate::access::attempt::observation::Sight;
use crate::access::attempt::reports::Reports;
use crate::access::attempt::standing::Standing;
use crate::clock::Moment;
use crate::face::track::TrackId;
use crate::face::track::Tracker;
use crate::gallery::names::PersonId;

/// Shortest cool-down: below this, one person would be reported several times a second.
pub const COOLDOWN_MIN: Duration = Duration::from_secs(1);
/// Looks in a row without a match before a stranger is reported: one bad frame of an enrolled
/// person is no stranger.
pub const UNKNOWN_FRAMES_MIN: u32 = 3;
/// Time that those frames must span; a fast camera delivers three bad frames in a tenth of a
/// second.
pub const UNKNOWN_TIME_MIN: Duration = Duration::from_millis(300);
/// A face at the place of a person who was recognised this recently is that person on a bad frame.
pub const PERSON_HOLD: Duration = Duration::from_secs(1);
/// How long a frame that looked like an attack on a person is held against everybody who looks like
/// that person: a print that is taken away and shown again must not begin anew.
pub const ATTACK_MEMORY: Duration = Duration::from_secs(60);
/// How long a recognised person may stand there without an answer on liveness before `denied`.
pub const LIVENESS_WAIT: Duration = Duration::from_secs(3);
/// How long it may stay undecided who it is before `denied`.
pub const IDENTITY_WAIT: Duration = Duration::from_secs(3);
/// How long a face may stand near without a shot that can be judged before `denied`.
pub const FLAW_WAIT: Duration = Duration::from_secs(3);
/// A face is looked at again after this time when no question is open: half of [`PERSON_HOLD`], so
/// that somebody else in the same place is noticed, and a recognised person stays recognised.
pub const RECHECK_INTERVAL: Duration = Duration::from_millis(500);
/// From a first denial by the door to the next try.
pub const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Longest such pause: somebody who waits for the end of a lock-out or a schedule is let in within
/// a minute of it.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A face this wide has come near, in pixels: the least that the liveness rules of cameras judge.
pub const NEAR_FACE_PX: f32 = 80.0;
/// Who was looked at for less time before leaving asked for nothing: people pass by.
pub const FACE_LEFT_TIME_MIN: Duration = Duration::from_secs(1);
/// While a stranger gets as far as the leading person did with at most this chance, the face may be
/// that person on weak frames: one stranger in twenty is reported late.
pub const IDENTITY_PLAUSIBLE_MAX: f64 = 0.05;

/// How the attempts of one camera are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttemptOptions {
    /// A reported person is reported again only after this time without being seen; at least
    /// [`COOLDOWN_MIN`].
    pub cooldown: Duration,
    /// Whether a face must be found live.
    pub liveness: LivenessPolicy,
    /// A recognised person comes this near before it is a match: least width of the face in pixels.
    pub face_px_min: f32,
    /// Whether a match asks for a face that changes even where liveness is off: a camera that hangs
    /// on its last frame must not open a door.
    pub asks_motion: bool,
}

/// Whether a face must be found live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessPolicy {
    /// Evidence is not looked at.
    Off,
    /// No `match` without a live face. What was not checked is not live.
    Required,
}

/// All attempts in front of one camera.
#[derive(Debug)]
pub struct Attempts {
    options: AttemptOptions,
    tracker: Tracker,
    standings: HashMap<TrackId, Standing>,
    reports: Reports,
    now: Moment,
    /// When the latest frame was captured; behind `now` when it was late.
    captured: Moment,
    failed: usize,
}

impl Attempts {
    /// Nobody is there.
    pub fn new(options: AttemptOptions) -> Self {
        let cooldown = options.cooldown.max(COOLDOWN_MIN);
        Self {
            options: AttemptOptions { cooldown, ..options },
            tracker: Tracker::new(),
            standings: HashMap::new(),
            reports: Reports::new(cooldown),
            now: Moment::default(),
            captured: Moment::default(),
            failed: 0,
        }
    }

    /// Whether somebody is there, or was a moment ago.
    pub fn is_occupied(&self) -> bool {
        !self.tracker.is_empty()
    }

    /// For the next frame.
    pub fn lookout(&self) -> Lookout {
        let settled = self.standings.iter().filter(|(_, standing)| standing.settled);
        let due = |standing: &Standing| standing.last_look.plus(RECHECK_INTERVAL);
        Lookout {
            tracker: self.tracker.clone(),
            settled: settled.map(|(track, standing)| (*track, due(standing))).collect(),
        }
    }

    /// Takes a frame that shows no face, or that nobody looked at.
    pub fn observe_nobody(&mut self, now: Moment) -> Vec<Outcome> {
        self.now = self.now.max(now);
        self.tracker.follow(self.now, &[]);
        self.take_leave()
    }

    /// Takes what one frame shows and answers what to report. `known` answers the cosine of one
    /// observation with one person.
    pub fn observe(
        &mut self,
        sight: Sight<'_>,
        identification: &Identification,
        known: &dyn Fn(usize, &PersonId) -> Option<f32>,
    ) -> Vec<Outcome> {
        let Sight { captured, lookout, faces } = sight;
        (self.now, self.captured) = (self.now.max(captured), captured);
        self.tracker = lookout.tracker;
        let now = self.now;
        let mut outcomes = Vec::new();
        for (index, observation) in faces.iter().enumerate() {
            let mut standing = self
                .standings
                .remove(&observation.track)
                .unwrap_or_else(|| Standing::new(observation.quality, now));
            let who = standing.see(observation, identification, &|id| known(index, id), now);
            let told = match (&observation.look, who) {
                (Some(look), Some(who)) => self.judge(&mut standing, observation, look, &who),
                _ => self.judge_shot(&mut standing, &observation.quality),
            };
            if let Some(told) = told {
                standing.has_been_told = true;
                outcomes.push(self.outcome(&standing, told, observation, index));
            }
            self.standings.insert(observation.track, standing);
        }
        outcomes.extend(self.take_leave());
        outcomes
    }

    /// The door was denied to a person: the match is reported again after a pause, or somebody who
    /// was a moment too early, or came during a lock-out, would have to walk away and come back. The
    /// pause doubles from [`RETRY_PAUSE`] to [`RETRY_PAUSE_MAX`], so that who stays fills no log.
    pub fn try_again(&mut self, person: &PersonId) {
        let now = self.now;
        let entry = self.reports.remember(person, now);
        let doubled = RETRY_PAUSE.saturating_mul(1 << entry.denials.min(16));
        entry.denials = entry.denials.saturating_add(1);
        entry.again = Some(now.plus(doubled.min(RETRY_PAUSE_MAX)));
    }

    /// Visits near the camera that have ended since the last call without any event, by somebody
    /// nobody knows or with what looked like an attack.
    pub fn take_failed(&mut self) -> usize {
        std::mem::take(&mut self.failed)
    }

    /// Forgets the faces that have left, of which some wanted something.
    fn take_leave(&mut self) -> Vec<Outcome> {
        let mut tracks: Vec<TrackId> = self.standings.keys().copied().collect();
        tracks.retain(|track| !self.tracker.is_alive(*track));
        tracks.sort_unstable();
        let mut outcomes = Vec::new();
        for track in tracks {
            let Some(mut standing) = self.standings.remove(&track) else { continue };
            self.failed += usize::from(standing.has_failed_untold());
            if let Some(told) = self.judge_leaving(&mut standing) {
                let shot = standing.best;
                outcomes.push(self.bare_outcome(track, &standing, told, shot));
            }
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::{Arc, LazyLock};

    use super::*;
    use crate::access::attempt::observation::{Evidence, IdentityRule, Look, Observation, Verdict};
    use crate::access::attempt::reports::PERSONS_MAX;
    use crate::access::event::Reason;
    use crate::access::grant::Liveness;
    use crate::access::identity::{Comparison, IdentityOptions, IdentityRules};
    use crate::face::comparison::{Score, ScoreMap};
    use crate::face::cues::motion::Signature;
    use crate::face::detection::Detection;
    use crate::face::geometry::Point;
    use crate::face::geometry::Rect;
    use crate::face::image::Image;
    use crate::face::liveness::{LivenessReason, LivenessReport};
    use crate::face::pose::Pose;
    use crate::face::quality::{Flaw, Quality};
    use crate::face::tail::{Tail, TailEntry};
    use crate::face::track::TRACKS_MAX;

    const COOLDOWN: Duration = Duration::from_secs(10);
    const STEP: Duration = Duration::from_millis(100);

    fn id(name: &str) -> PersonId {
        PersonId::new(name).unwrap()
    }

    fn at(x: f32) -> Rect {
        Rect { x, y: 100.0, width: 80.0, height: 100.0 }
    }

    /// A face of a frame, before it has a track.
    #[derive(Clone, Debug)]
    struct Shown {
        bounds: Rect,
        person: Option<PersonId>,
        evidence: Evidence,
        quality: Quality,
        looked: bool,
    }

    fn face(x: f32, person: Option<&str>, evidence: Evidence) -> Shown {
        let person = person.map(id);
        Shown { bounds: at(x), person, evidence, quality: good(), looked: true }
    }

    fn good() -> Quality {
        Quality {
            face_px: 120.0,
            mean: 120.0,
            bright_share: 0.0,
            sharpness: Some(0.7),
            pose: Some(Pose { yaw_deg: 0.0, pitch_deg: 0.0 }),
        }
    }

    fn floor() -> Identification {
        Identification {
            rule: IdentityRule::Floor,
            score_min: Score::new(0.7).unwrap(),
            score_map: Arc::new(ScoreMap::new(vec![[-1.0, 0.0], [0.4, 0.7], [1.0, 1.0]]).unwrap()),
        }
    }

    fn options(liveness: LivenessPolicy) -> AttemptOptions {
        AttemptOptions { cooldown: COOLDOWN, liveness, face_px_min: 0.0, asks_motion: false }
    }

    fn detection(bounds: Rect) -> Detection {
        let Rect { x, y, width, height } = bounds;
        let place = |dx: f32, dy: f32| Point::new(x + dx * width, y + dy * height);
        let landmarks =
            [place(0.3, 0.4), place(0.7, 0.4), place(0.5, 0.6), place(0.35, 0.8), place(0.65, 0.8)];
        Detection { bounds, landmarks, confidence: 0.9 }
    }

    /// One frame by the floor rule; faces are looked at as they say, whatever the lookout thinks.
    fn observe(
        attempts: &mut Attempts,
        now: Moment,
        frame: &[Shown],
        signature: Option<&Signature>,
    ) -> Vec<Outcome> {
        let mut lookout = attempts.lookout();
        let faces: Vec<_> = frame.iter().map(|shown| detection(shown.bounds)).collect();
        let tracks = lookout.follow(now, &faces);
        let observation = |(shown, track): (&Shown, TrackId)| {
            let person = shown.person.clone();
            let candidates = person.map(|person| Comparison { person, cosine: 0.8 });
            let look = Look {
                candidates: candidates.into_iter().collect(),
                evidence: shown.evidence,
                pad_score: Some(0.9),
            };
            Observation {
                track,
                quality: shown.quality,
                signature: signature.cloned(),
                look: shown.looked.then_some(look),
            }
        };
        let seen: Vec<_> = frame.iter().zip(tracks).map(observation).collect();
        let sight = Sight { captured: now, lookout, faces: &seen };
        attempts.observe(sight, &floor(), &|_, _| None)
    }

    /// The pixels of a face in a frame; even and odd frames differ.
    fn pixels(frame: usize) -> Signature {
        static BOTH: LazyLock<[Signature; 2]> = LazyLock::new(|| {
            [100, 110].map(|level| {
                let image = Image::from_rgb(100, 100, vec![level; 30_000]).unwrap();
                let points = [(35.0, 40.0), (65.0, 40.0), (50.0, 55.0), (38.0, 70.0), (62.0, 70.0)];
                let landmarks = points.map(|(x, y)| Point::new(x, y));
                let bounds = Rect { x: 20.0, y: 20.0, width: 60.0, height: 70.0 };
                Signature::of(&image, &Detection { bounds, landmarks, confidence: 0.9 }).unwrap()
            })
        });
        BOTH[frame % 2].clone()
    }

    fn alice(evidence: Evidence) -> Shown {
        face(0.0, Some("alice"), evidence)
    }

    fn stranger() -> Shown {
        face(0.0, None, Evidence::Live)
    }

    /// Plays frames at a steady pace and notes what is reported, with the number of the frame.
    struct Scene {
        attempts: Attempts,
        now: Moment,
        frame: usize,
        log: Vec<(usize, Verdict)>,
    }

    impl Scene {
        fn new(liveness: LivenessPolicy) -> Self {
            let now = Moment::from_nanos(1 << 40);
            Self { attempts: Attempts::new(options(liveness)), now, frame: 0, log: Vec::new() }
        }

        fn show(&mut self, times: usize, frame: &[Shown]) -> &mut Self {
            for _ in 0..times {
                let signature = pixels(self.frame);
                for outcome in observe(&mut self.attempts, self.now, frame, Some(&signature)) {
                    assert!(outcome.observation.is_none_or(|index| index < frame.len()));
                    self.log.push((self.frame, outcome.verdict));
                }
                self.frame += 1;
                self.now = self.now.plus(STEP);
            }
            self
        }

        fn verdicts(&self) -> Vec<Verdict> {
            self.log.iter().map(|entry| entry.1).collect()
        }
    }

    #[test]
    fn who_stands_there_is_reported_once_and_again_after_the_cool_down() {
        let mut scene = Scene::new(LivenessPolicy::Off);
        scene.show(300, &[alice(Evidence::Unchecked)]);
        assert_eq!(scene.log, [(0, Verdict::Match)], "thirty seconds in view, one report");
        scene.show(98, &[]).show(10, &[alice(Evidence::Unchecked)]);
        assert_eq!(scene.log.len(), 1, "back before the cool-down has passed");
        scene.show(100, &[]).show(10, &[alice(Evidence::Unchecked)]);
        assert_eq!(scene.verdicts(), [Verdict::Match, Verdict::Match]);
    }

    #[test]
    fn a_person_is_known_by_name_wherever_the_face_shows_up() {
        let mut scene = Scene::new(LivenessPolicy::Off);
        for step in 0..50_usize {
            let x = (step * 997 % 2000) as f32;
            scene.show(1, &[face(x, Some("alice"), Evidence::Unchecked)]);
        }
        scene.show(1, &[alice(Evidence::Unchecked), face(900.0, Some("alice"), Evidence::Live)]);
        assert_eq!(scene.verdicts(), [Verdict::Match]);
        scene.show(1, &[face(0.0, Some("bob"), Evidence::Unchecked)]);
        assert_eq!(scene.verdicts(), [Verdict::Match, Verdict::Match]);
    }

    #[test]
    fn a_stranger_is_reported_once_per_presence_after_enough_frames() {
        let mut scene = Scene::new(LivenessPolicy::Off);
        scene.show(200, &[stranger()]);
        assert_eq!(scene.log, [(3, Verdict::UnknownFace)], "300 ms after the first frame");
        scene.show(15, &[]).show(20, &[stranger()]);
        assert_eq!(scene.log.len(), 1, "a short gap is the same presence");
        scene.show(20, &[]).show(20, &[stranger()]);
        assert_eq!(scene.log.len(), 2);
    }

    #[test]
    fn a_stranger_who_walks_is_one_stranger_and_two_side_by_side_are_two() {
        let mut scene = Scene::new(LivenessPolicy::Off);
        for step in 0..60 {
            let near = face(step as f32 * 30.0, None, Evidence::Live);
            let far = face(3000.0, None, Evidence::Live);
            scene.show(1, &if step % 2 == 0 { [near, far] } else { [far, near] });
        }
        assert_eq!(scene.verdicts(), [Verdict::UnknownFace, Verdict::UnknownFace]);
    }

    #[test]
    fn bad_frames_of_an_enrolled_person_are_no_stranger() {
        let mut scene = Scene::new(LivenessPolicy::Off);
        for _ in 0..20 {
            scene.show(1, &[alice(Evidence::Unchecked)]).show(9, &[stranger()]);
        }
        assert_eq!(scene.verdicts(), [Verdict::Match]);
        let mut scene = Scene::new(LivenessPolicy::Off);
        scene.show(3, &[stranger()]).show(5, &[alice(Evidence::Unchecked)]);
        assert_eq!(scene.verdicts(), [Verdict::Match], "two or three bad frames at first");
        scene.show(20, &[stranger()]);
        let taken_over = [Verdict::Match, Verdict::UnknownFace];
        assert_eq!(scene.verdicts(), taken_over, "a stranger who takes the place is noticed");
    }

    #[test]
    fn liveness_is_waited_for_and_then_matched() {
        let small = Evidence::Unsure(LivenessReason::FaceTooSmall);
        let mut scene = Scene::new(LivenessPolicy::Required);
        scene.show(25, &[alice(small)]).show(100, &[alice(Evidence::Live)]);
        assert_eq!(scene.log, [(27, Verdict::Match)], "three frames agree");
        let blink = Evidence::Unsure(LivenessReason::EyesClosed);
        let mut scene = Scene::new(LivenessPolicy::Required);
        scene.show(3, &[alice(Evidence::Live)]).show(2, &[alice(blink)]);
        scene.show(1, &[alice(Evidence::Live)]);
        assert_eq!(scene.log, [(5, Verdict::Match)], "a blink delays, and decides nothing");
    }

    #[test]
    fn no_answer_on_liveness_is_denied_with_its_reason_and_a_later_answer_still_counts() {
        let cases = [
            (Evidence::Unsure(LivenessReason::FaceTooSmall), Reason::TooSmall),
            (Evidence::Unsure(LivenessReason::FaceAngleTooLarge), Reason::OffPose),
            (Evidence::Unsure(LivenessReason::EyesClosed), Reason::EyesClosed),
            (Evidence::Unsure(LivenessReason::FaceIsOccluded), Reason::Occluded),
            (Evidence::Unsure(LivenessReason::FaceCropped), Reason::LivenessUnsure),
            (Evidence::Unsure(LivenessReason::UnknownError), Reason::Fault),
            (Evidence::Unchecked, Reason::LivenessUnsure),
        ];
        for (evidence, reason) in cases {
            let mut scene = Scene::new(LivenessPolicy::Required);
            scene.show(200, &[alice(evidence)]);
            assert_eq!(scene.log, [(30, Verdict::Denied(reason))], "three seconds");
            scene.show(5, &[alice(Evidence::Live)]).show(200, &[alice(evidence)]);
            assert_eq!(scene.verdicts(), [Verdict::Denied(reason), Verdict::Match]);
        }
    }

    #[test]
    fn a_blink_at_the_end_is_not_the_reason_of_a_denial() {
        let mut scene = Scene::new(LivenessPolicy::Required);
        scene.show(29, &[alice(Evidence::Unsure(LivenessReason::FaceTooSmall))]);
        scene.show(20, &[alice(Evidence::Unsure(LivenessReason::EyesClosed))]);
        assert_eq!(scene.log, [(30, Verdict::Denied(Reason::TooSmall))]);
    }

    #[test]
    fn a_strangers_live_frames_are_not_the_persons_on_a_photograph() {
        let mut scene = Scene::new(LivenessPolicy::Required);
        for _ in 0..3 {
            // The photograph, then the face of whoever holds it, in the same place.
            scene.show(1, &[alice(Evidence::Live)]).show(8, &[stranger()]);
        }
        assert!(!scene.verdicts().contains(&Verdict::Match), "{:?}", scene.log);
        let mut scene = Scene::new(LivenessPolicy::Required);
        scene.show(5, &[alice(Evidence::Live)]).show(15, &[stranger()]);
        assert_eq!(scene.verdicts()[0], Verdict::Match);
        scene.show(200, &[stranger()]).show(2, &[alice(Evidence::Live)]);
        let matches = scene.verdicts().iter().filter(|verdict| **verdict == Verdict::Match).count();
        assert_eq!(matches, 1, "who left an hour ago does not vouch for a picture");
    }

    #[test]
    fn an_attack_is_remembered_when_it_is_taken_away_and_shown_again() {
        let mut scene = Scene::new(LivenessPolicy::Required);
        scene.show(1, &[alice(Evidence::Spoof)]);
        for _ in 0..5 {
            scene.show(25, &[]).show(5, &[alice(Evidence::Live)]);
        }
        assert_eq!(scene.log, [], "three live frames are too few now");
        scene.show(10, &[alice(Evidence::Live)]);
        assert_eq!(scene.verdicts(), [Verdict::Match], "ten are enough");
    }

    #[test]
    fn a_face_that_has_not_changed_yet_is_not_live_yet() {
        let still = |frames: usize| {
            let mut attempts = Attempts::new(options(LivenessPolicy::Required));
            let mut now = Moment::from_nanos(1 << 40);
            let mut verdicts = Vec::new();
            for _ in 0..frames {
                let seen = [alice(Evidence::Live)];
                let told = observe(&mut attempts, now, &seen, Some(&pixels(0)));
                verdicts.extend(told.into_iter().map(|o| o.verdict));
                now = now.plus(STEP);
            }
            verdicts
        };
        assert_eq!(still(100), [Verdict::SpoofSuspected]);
        let mut exchanged = Scene::new(LivenessPolicy::Required);
        exchanged.show(10, &[stranger()]);
        let still = [alice(Evidence::Live)];
        for frame in 0..8 {
            let now = exchanged.now.plus(STEP * frame);
            let told = observe(&mut exchanged.attempts, now, &still, Some(&pixels(0)));
            assert_eq!(told, [], "the exchange is no change");
        }
        let mut attempts = Attempts::new(options(LivenessPolicy::Required));
        let now = Moment::from_nanos(1 << 40);
        let unknown = [alice(Evidence::Live)];
        let told: usize =
            (0..20).map(|n| observe(&mut attempts, now.plus(STEP * n), &unknown, None).len()).sum();
        assert_eq!(told, 0, "without pixels nobody knows whether it changes");
    }

    #[test]
    fn a_spoof_is_reported_once_and_never_matched() {
        let mut scene = Scene::new(LivenessPolicy::Required);
        scene.show(200, &[alice(Evidence::Spoof)]);
        assert_eq!(scene.log, [(2, Verdict::SpoofSuspected)]);
        let mut flicker = Scene::new(LivenessPolicy::Required);
        for _ in 0..20 {
            flicker.show(3, &[alice(Evidence::Spoof)]).show(2, &[alice(Evidence::Live)]);
        }
        assert_eq!(flicker.verdicts()[0], Verdict::SpoofSuspected);
        flicker.show(5, &[alice(Evidence::Live)]);
        assert!(!flicker.verdicts().contains(&Verdict::Match), "most frames must agree");
        flicker.show(3, &[alice(Evidence::Live)]);
        assert!(flicker.verdicts().contains(&Verdict::Match), "eight of the latest ten do");
    }

    #[test]
    fn one_frame_that_looks_like_an_attack_is_not_reported() {
        let mut scene = Scene::new(LivenessPolicy::Required);
        scene.show(2, &[alice(Evidence::Spoof)]).show(10, &[alice(Evidence::Live)]);
        assert_eq!(scene.log, [(9, Verdict::Match)], "eight of ten");
        scene.show(100, &[alice(Evidence::Spoof)]);
        assert_eq!(scene.verdicts(), [Verdict::Match], "who was found live stays so while there");
    }

    #[test]
    fn one_persons_live_frames_are_not_another_persons() {
        let mut scene = Scene::new(LivenessPolicy::Required);
        scene.show(10, &[alice(Evidence::Live)]);
        let bob = |evidence| face(0.0, Some("bob"), evidence);
        scene.show(2, &[bob(Evidence::Live)]).show(3, &[bob(Evidence::Spoof)]);
        assert_eq!(scene.verdicts(), [Verdict::Match, Verdict::SpoofSuspected], "held in front");
    }

    #[test]
    fn a_photograph_on_the_wall_does_not_silence_the_person_it_shows() {
        let mut scene = Scene::new(LivenessPolicy::Required);
        let photograph = || face(1000.0, Some("alice"), Evidence::Spoof);
        // It makes the person wait for ten frames, not for three.
        scene.show(11, &[photograph(), alice(Evidence::Live)]);
        scene.show(150, &[photograph()]);
        scene.show(11, &[photograph(), alice(Evidence::Live)]);
        let expected = [Verdict::SpoofSuspected, Verdict::Match, Verdict::Match];
        assert_eq!(scene.verdicts(), expected);
    }

    #[test]
    fn a_spoof_by_a_stranger_is_a_spoof_and_not_a_stranger() {
        let mut scene = Scene::new(LivenessPolicy::Required);
        scene.show(100, &[face(0.0, None, Evidence::Spoof)]);
        assert_eq!(scene.verdicts(), [Verdict::SpoofSuspected]);
    }

    #[test]
    fn a_thousand_faces_cost_bounded_memory() {
        let mut scene = Scene::new(LivenessPolicy::Off);
        let names: Vec<String> = (0..5000).map(|n| format!("p{n}")).collect();
        let crowd: Vec<Shown> = names
            .iter()
            .enumerate()
            .map(|(n, name)| face(n as f32 * 200.0, Some(name), Evidence::Live))
            .collect();
        scene.show(1, &crowd[..1000]);
        assert_eq!(scene.log.len(), 1000);
        scene.show(3, &crowd[..1000]);
        assert_eq!(scene.log.len(), 1000);
        scene.show(1, &crowd);
        assert!(scene.attempts.standings.len() <= TRACKS_MAX);
        assert!(scene.attempts.reports.len() <= PERSONS_MAX);
        let strangers: Vec<Shown> =
            (0..1000).map(|n| face(n as f32 * 200.0, None, Evidence::Live)).collect();
        scene.show(20, &strangers);
        assert!(scene.attempts.standings.len() <= TRACKS_MAX);
    }

    #[test]
    fn boxes_that_are_not_numbers_do_no_harm() {
        let mut scene = Scene::new(LivenessPolicy::Off);
        for value in [f32::NAN, f32::INFINITY, f32::MIN, 0.0] {
            let bounds = Rect { x: value, y: value, width: value, height: value };
            let person = Some(id("alice"));
            scene.show(5, &[Shown { bounds, person, ..alice(Evidence::Live) }]);
        }
        assert_eq!(scene.verdicts(), [Verdict::Match]);
    }

    #[test]
    fn evidence_of_a_report() {
        let report =
            |failure, pad_score| LivenessReport { failure, pad_score, ..LivenessReport::default() };
        let cases = [
            (report(None, Some(0.9)), Evidence::Live),
            (report(None, None), Evidence::Unchecked),
            (report(Some(LivenessReason::FaceNotLive), Some(0.1)), Evidence::Spoof),
            (
                report(Some(LivenessReason::FaceCropped), None),
                Evidence::Unsure(LivenessReason::FaceCropped),
            ),
        ];
        for (report, evidence) in cases {
            assert_eq!(Evidence::from(&report), evidence);
        }
    }

    /// A model that tells people apart, as far as nine decades.
    fn within_bound(references: usize) -> Identification {
        let tail = Tail::new(TailEntry {
            knots: vec![[0.0, -0.5], [0.4, -4.0], [0.8, -9.0]],
            correlation: 0.8,
            comparisons: 10_000_000_000,
        });
        let Identification { score_min, score_map, .. } = floor();
        let options = IdentityOptions { false_accept_per_attempt: 1e-3, references, score_min };
        let rules = IdentityRules::new(Arc::new(tail.unwrap()), Arc::clone(&score_map), options);
        Identification { rule: IdentityRule::Sequential(rules), score_min, score_map }
    }

    /// Frames of one live face at one place, by the sequential test against so many references.
    struct Visit {
        attempts: Attempts,
        references: usize,
        now: Moment,
        frame: usize,
        looks: usize,
        log: Vec<(usize, Outcome)>,
    }

    impl Visit {
        fn new(references: usize, options: AttemptOptions) -> Self {
            let now = Moment::from_nanos(1 << 40);
            let attempts = Attempts::new(options);
            Self { attempts, references, now, frame: 0, looks: 0, log: Vec::new() }
        }

        /// A face with these cosines, which is looked at when the lookout thinks it worth it.
        fn show(&mut self, frames: usize, shot: Quality, cosines: &[(&str, f32)]) -> &mut Self {
            for _ in 0..frames {
                let mut lookout = self.attempts.lookout();
                let track = lookout.follow(self.now, &[detection(at(0.0))])[0];
                let candidate =
                    |(name, cosine): &(&str, f32)| Comparison { person: id(name), cosine: *cosine };
                let look = lookout.is_worth_a_look(self.now, track, &shot).then(|| Look {
                    candidates: cosines.iter().map(candidate).collect(),
                    evidence: Evidence::Live,
                    pad_score: Some(0.9),
                });
                self.looks += usize::from(look.is_some());
                let signature = Some(pixels(self.frame));
                let seen = [Observation { track, quality: shot, signature, look }];
                let known = |_: usize, person: &PersonId| {
                    Some(cosines.iter().find(|(name, _)| id(name) == *person).map_or(0.0, |c| c.1))
                };
                let rules = within_bound(self.references);
                let sight = Sight { captured: self.now, lookout, faces: &seen };
                let told = self.attempts.observe(sight, &rules, &known);
                self.log.extend(told.into_iter().map(|outcome| (self.frame, outcome)));
                self.step();
            }
            self
        }

        fn leave(&mut self) -> &mut Self {
            for _ in 0..25 {
                let told = self.attempts.observe_nobody(self.now);
                self.log.extend(told.into_iter().map(|outcome| (self.frame, outcome)));
                self.step();
            }
            self
        }

        fn step(&mut self) {
            self.frame += 1;
            self.now = self.now.plus(STEP);
        }

        fn verdicts(&self) -> Vec<Verdict> {
            self.log.iter().map(|(_, outcome)| outcome.verdict).collect()
        }
    }

    const NOT_ASKED: AttemptOptions = AttemptOptions {
        cooldown: COOLDOWN,
        liveness: LivenessPolicy::Off,
        face_px_min: 0.0,
        asks_motion: false,
    };

    #[test]
    fn an_easy_face_is_decided_in_one_frame_and_a_hard_one_waits_without_being_a_stranger() {
        let mut easy = Visit::new(1000, NOT_ASKED);
        easy.show(10, good(), &[("alice", 0.75), ("bob", 0.1)]);
        assert_eq!((easy.log.len(), easy.log[0].0), (1, 0));
        let mut hard = Visit::new(1000, NOT_ASKED);
        hard.show(28, good(), &[("alice", 0.55), ("bob", 0.1)]);
        assert_eq!(hard.verdicts(), [Verdict::Match]);
        assert!((1..28).contains(&hard.log[0].0), "{:?}", hard.log[0]);
        let mut weak = Visit::new(10, NOT_ASKED);
        weak.show(15, good(), &[("alice", 0.38), ("bob", 0.1)]);
        assert_eq!(weak.verdicts(), [], "below the floor, and far above a stranger");
        weak.show(10, good(), &[("alice", 0.75), ("bob", 0.1)]);
        assert_eq!(weak.verdicts(), [Verdict::Match]);
        let mut stranger = Visit::new(1000, NOT_ASKED);
        stranger.show(60, good(), &[("alice", 0.12), ("bob", 0.1)]);
        assert_eq!(stranger.verdicts(), [Verdict::UnknownFace]);
    }

    #[test]
    fn who_stays_undecided_is_denied_with_the_reason_and_without_a_name() {
        for (cosines, references, reason) in [
            ([("alice", 0.45), ("bob", 0.1)], 1_000_000, Reason::BelowThreshold),
            ([("alice", 0.75), ("bob", 0.74)], 10, Reason::AmbiguousTop2),
        ] {
            let mut visit = Visit::new(references, NOT_ASKED);
            visit.show(100, good(), &cosines).leave();
            assert_eq!(visit.verdicts(), [Verdict::Denied(reason)]);
            let (frame, outcome) = &visit.log[0];
            assert_eq!((*frame, &outcome.person), (30, &None), "three seconds");
            assert!(!outcome.identity.unwrap().accepted);
        }
    }

    #[test]
    fn a_match_carries_what_a_grant_asks_for() {
        let mut visit = Visit::new(100, options(LivenessPolicy::Required));
        visit.show(10, good(), &[("alice", 0.75), ("bob", 0.1)]);
        let (frame, outcome) = &visit.log[0];
        let captured = Moment::from_nanos(1 << 40).plus(STEP * *frame as u32);
        assert_eq!((outcome.captured, outcome.seen), (captured, captured));
        assert_eq!((outcome.flaw, outcome.face_px), (None, 120.0));
        assert!(matches!(outcome.live, Liveness::Live(score) if score > 0.5), "{outcome:?}");
        let identity = outcome.identity.unwrap();
        assert!(identity.accepted && identity.false_accept <= identity.false_accept_max);
        assert_eq!(identity.false_accept_max, 1e-3);
        assert!((identity.margin.unwrap() - 0.65).abs() < 1e-4, "{identity:?}");
        assert_eq!(outcome.person, Some(id("alice")));
    }

    #[test]
    fn a_settled_face_is_looked_at_twice_a_second_and_somebody_else_there_is_noticed() {
        let alice = [("alice", 0.75), ("bob", 0.1)];
        let mut visit = Visit::new(100, NOT_ASKED);
        visit.show(1, good(), &alice);
        visit.show(100, good(), &alice);
        assert_eq!(visit.looks, 1 + 20, "a hundred frames are ten seconds");
        visit.show(30, good(), &[("bob", 0.75), ("alice", 0.1)]);
        assert_eq!(visit.verdicts(), [Verdict::Match; 2]);
        assert_eq!(visit.log[1].1.person, Some(id("bob")));
        assert!(visit.log[1].0 <= 101 + 5, "with the next look");
        visit.show(60, good(), &[("alice", 0.1), ("bob", 0.1)]);
        assert_eq!(visit.verdicts()[2..], [Verdict::UnknownFace]);
        let looks = visit.looks;
        visit.show(50, good(), &[("alice", 0.1), ("bob", 0.1)]);
        assert_eq!(visit.looks - looks, 10, "a stranger who was reported is settled, too");
        let back = visit.show(45, good(), &[("carol", 0.75)]).verdicts();
        assert_eq!(back[3..], [Verdict::Match], "and may be somebody else");
    }

    #[test]
    fn who_is_recognised_and_leaves_before_the_decision_has_left() {
        let required = options(LivenessPolicy::Required);
        let alice = [("alice", 0.75), ("bob", 0.1)];
        let turned = Quality { pose: None, ..good() };
        let waiting = |frames: usize, shot: Quality| {
            let mut visit = Visit::new(100, AttemptOptions { face_px_min: 500.0, ..required });
            visit.show(frames, shot, &alice).leave().leave();
            visit.log.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>()
        };
        let left = waiting(15, good());
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].verdict, Verdict::Denied(Reason::FaceLeft));
        assert_eq!((left[0].observation, left[0].person.clone()), (None, Some(id("alice"))));
        assert!(left[0].captured < left[0].seen.plus(STEP), "as it was last seen");
        assert_eq!(waiting(5, good()), [], "who passes by asks for nothing");
        assert_eq!(waiting(15, turned), [], "nor who does not look");
        assert_eq!(waiting(15, Quality { face_px: 60.0, ..good() }), [], "nor who is far away");
    }

    #[test]
    fn a_face_near_the_camera_that_cannot_be_judged_is_told_why_once() {
        let dark = Quality { mean: 5.0, ..good() };
        let burnt = Quality { bright_share: 0.9, ..good() };
        let blurred = Quality { sharpness: Some(0.01), ..good() };
        let turned = Quality { pose: Some(Pose { yaw_deg: 80.0, pitch_deg: 0.0 }), ..good() };
        let far = Quality { face_px: 10.0, ..good() };
        for (shot, flaw, expected) in [
            (dark, Flaw::TooDark, Some(Reason::TooDark)),
            (burnt, Flaw::TooBright, Some(Reason::TooBright)),
            (blurred, Flaw::Blurred, Some(Reason::Blurred)),
            (Quality { face_px: 60.0, ..dark }, Flaw::TooDark, None),
            (turned, Flaw::OffPose, None),
            (far, Flaw::TooSmall, None),
        ] {
            assert_eq!(shot.flaw(), Some(flaw));
            let mut visit = Visit::new(100, NOT_ASKED);
            visit.show(100, shot, &[("alice", 0.75)]).leave();
            let expected: Vec<_> = expected.into_iter().map(Verdict::Denied).collect();
            assert_eq!((visit.verdicts(), visit.looks), (expected, 0), "{flaw:?}");
        }
    }

    #[test]
    fn a_recognised_person_comes_near_before_it_is_a_match() {
        let mut visit = Visit::new(100, AttemptOptions { face_px_min: 110.0, ..NOT_ASKED });
        let alice = [("alice", 0.75), ("bob", 0.1)];
        visit.show(20, Quality { face_px: 100.0, ..good() }, &alice);
        assert_eq!(visit.verdicts(), []);
        visit.show(1, good(), &alice);
        assert_eq!(visit.verdicts(), [Verdict::Match]);
        let mut far = Visit::new(100, AttemptOptions { face_px_min: 110.0, ..NOT_ASKED });
        far.show(60, Quality { face_px: 100.0, ..good() }, &alice);
        assert_eq!(far.verdicts(), [Verdict::Denied(Reason::TooSmall)]);
    }

    /// Frames of Alice 100 ms apart, whose pixels are those of the given frames.
    fn shown_pixels(options: AttemptOptions, frames: impl Iterator<Item = usize>) -> Vec<Verdict> {
        let mut attempts = Attempts::new(options);
        let mut now = Moment::from_nanos(1 << 40);
        let mut verdicts = Vec::new();
        for frame in frames {
            let shown = [alice(Evidence::Unchecked)];
            let outcomes = observe(&mut attempts, now, &shown, Some(&pixels(frame)));
            verdicts.extend(outcomes.iter().map(|outcome| outcome.verdict));
            now = now.plus(STEP);
        }
        verdicts
    }

    #[test]
    fn a_frozen_camera_opens_no_door_even_without_liveness() {
        let at_a_door = AttemptOptions { asks_motion: true, ..NOT_ASKED };
        assert_eq!(
            shown_pixels(at_a_door, std::iter::repeat_n(0, 100)),
            [Verdict::Denied(Reason::LivenessUnsure)]
        );
        assert_eq!(shown_pixels(at_a_door, 0..20), [Verdict::Match]);
        assert_eq!(shown_pixels(NOT_ASKED, std::iter::repeat_n(0, 20)), [Verdict::Match]);
    }

    #[test]
    fn a_denial_that_passes_is_tried_again_and_once() {
        let mut scene = Scene::new(LivenessPolicy::Off);
        scene.show(10, &[alice(Evidence::Unchecked)]);
        scene.attempts.try_again(&id("alice"));
        scene.show(100, &[alice(Evidence::Unchecked)]);
        let matches = scene.log.iter().filter(|(_, verdict)| *verdict == Verdict::Match);
        let frames: Vec<usize> = matches.map(|(frame, _)| *frame).collect();
        assert_eq!(frames.len(), 2, "{frames:?}");
        assert!((29..40).contains(&frames[1]), "after a pause of two seconds: {frames:?}");
    }

    fn evidence() -> impl Strategy<Value = Evidence> {
        prop_oneof![
            3 => Just(Evidence::Live),
            2 => Just(Evidence::Spoof),
            1 => Just(Evidence::Unsure(LivenessReason::FaceTooSmall)),
            1 => Just(Evidence::Unchecked),
        ]
    }

    fn observation() -> impl Strategy<Value = Shown> {
        let person = prop::option::of(prop::sample::select(vec!["alice", "bob", "carol"]));
        (0..6_u8, person, evidence())
            .prop_map(|(place, person, evidence)| face(f32::from(place) * 70.0, person, evidence))
    }

    fn frames() -> impl Strategy<Value = Vec<(i64, Vec<Shown>)>> {
        // Mostly a steady pace, sometimes a long gap, sometimes a clock that runs backwards.
        let step = prop_oneof![8 => Just(100_i64), 1 => 0..15_000_i64, 1 => Just(-5_000_i64)];
        prop::collection::vec((step, prop::collection::vec(observation(), 0..4)), 0..300)
    }

    /// What the promise says, counted the plain way: since the last report of a kind, was the
    /// person out of sight for a cool-down?
    #[derive(Default)]
    struct Ledger {
        sightings: HashMap<(PersonId, &'static str), Moment>,
        rested: HashMap<(PersonId, &'static str), bool>,
    }

    impl Ledger {
        fn see(&mut self, person: &PersonId, kind: &'static str, now: Moment) {
            let key = (person.clone(), kind);
            let last = self.sightings.insert(key.clone(), now);
            if last.is_none_or(|last| now.since(last) >= COOLDOWN) {
                self.rested.insert(key, true);
            }
        }

        fn report(&mut self, person: &PersonId, kind: &'static str) -> bool {
            self.rested.insert((person.clone(), kind), false) == Some(true)
        }
    }

    proptest! {
        #[test]
        fn the_promises_hold_whatever_the_input(frames in frames(), required: bool) {
            let liveness = if required { LivenessPolicy::Required } else { LivenessPolicy::Off };
            let mut attempts = Attempts::new(options(liveness));
            let mut ledger = Ledger::default();
            let mut clock: i64 = 1 << 50;
            let mut latest = Moment::default();
            let mut stranger_reports: HashMap<u64, u32> = HashMap::new();
            for (number, (step_ms, frame)) in frames.into_iter().enumerate() {
                clock += step_ms * 1_000_000;
                latest = latest.max(Moment::from_nanos(clock as u64));
                let now = Moment::from_nanos(clock as u64);
                let outcomes = observe(&mut attempts, now, &frame, Some(&pixels(number)));
                for (index, seen) in frame.iter().enumerate() {
                    let mine = outcomes.iter().filter(|outcome| outcome.observation == Some(index));
                    let mine: Vec<_> = mine.collect();
                    prop_assert!(mine.len() <= 1);
                    let Some(person) = &seen.person else {
                        for outcome in mine {
                            let of_a_stranger = matches!(
                                outcome.verdict,
                                Verdict::UnknownFace | Verdict::SpoofSuspected
                            );
                            prop_assert!(of_a_stranger);
                            *stranger_reports.entry(outcome.track).or_default() += 1;
                        }
                        continue;
                    };
                    let attack = required && seen.evidence == Evidence::Spoof;
                    ledger.see(person, "spoof", latest);
                    if !attack {
                        ledger.see(person, "match", latest);
                        ledger.see(person, "denied", latest);
                    }
                    for outcome in mine {
                        let kind = match outcome.verdict {
                            Verdict::Match => {
                                prop_assert!(!required || seen.evidence == Evidence::Live);
                                "match"
                            }
                            Verdict::SpoofSuspected => "spoof",
                            Verdict::Denied(_) => "denied",
                            Verdict::UnknownFace => unreachable!("a person is no stranger"),
                        };
                        prop_assert!(ledger.report(person, kind), "{} twice: {:?}", kind, person);
                    }
                }
                prop_assert!(attempts.standings.len() <= TRACKS_MAX);
            }
            prop_assert!(stranger_reports.values().all(|times| *times <= 2));
        }
    }
}
