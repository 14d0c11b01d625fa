//! One event per person who stands there, not thirty a second. Pure: time is an argument.
//!
//! Faces are joined over frames by place alone into *tracks*: enough to tell "still there" from
//! "somebody new" without keeping anything of a stranger but a rectangle and, while the track
//! lasts, the few pixels of the latest frame that tell whether the face changes. What is known by name is
//! kept by name: a person who was reported is reported again only after the cool-down without
//! being seen, wherever the face shows up and however often its track breaks.
//!
//! What is promised, whatever the input:
//! - at most one `match`, one `denied` and one `spoof_suspected` per person and cool-down, and no
//!   `denied` after a `match`;
//! - at most one `unknown_face` and one `spoof_suspected` of a stranger per track;
//! - with liveness required, a `match` only on a frame whose face was found live, in a track whose
//!   frames agree on it ([`Agreement`]);
//! - bounded memory; time that runs backwards counts as standing still.
//!
//! A later tracker with best-shot selection replaces the association here and keeps the rest.

use std::{collections::HashMap, time::Duration};

use crate::access::agreement::Agreement;
use crate::access::event::Reason;
use crate::access::stillness::Stillness;
use crate::access::waiting::Waiting;
use crate::clock::Moment;
use crate::face::cues::motion::Signature;
use crate::face::geometry::Rect;
use crate::face::liveness::Finding;
use crate::face::liveness::LivenessReason;
use crate::face::liveness::LivenessReport;
use crate::gallery::names::PersonId;

/// Most faces that are followed at one time; the one not seen for longest goes.
pub const TRACKS_MAX: usize = 64;
/// Most reported people that are remembered; the one not seen for longest goes, and would be
/// reported again.
pub const PERSONS_MAX: usize = 4096;
/// Shortest cool-down: below this, one person would be reported several times a second.
pub const COOLDOWN_MIN: Duration = Duration::from_secs(1);
/// A face that was not seen for this long has left; the next one there is somebody new.
pub const TRACK_GAP_MAX: Duration = Duration::from_secs(2);
/// Frames in a row without a match before a stranger is reported: one bad frame of an enrolled
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

/// Two boxes belong to one face when their overlap reaches this intersection over union…
const IOU_MIN: f32 = 0.2;
/// …or when their centres are nearer than this share of the wider box: someone who walks.
const CENTRE_DISTANCE_MAX: f32 = 0.5;

/// How the attempts of one camera are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptOptions {
    /// A reported person is reported again only after this time without being seen; at least
    /// [`COOLDOWN_MIN`].
    pub cooldown: Duration,
    /// Whether a face must be found live.
    pub liveness: LivenessPolicy,
}

/// Whether a face must be found live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessPolicy {
    /// Evidence is not looked at.
    Off,
    /// No `match` without a live face. What was not checked is not live.
    Required,
}

/// What one frame says about liveness of one face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Bona fide.
    Live,
    /// A presentation attack.
    Spoof,
    /// The picture does not allow an answer.
    Unsure(LivenessReason),
    /// Nobody looked.
    Unchecked,
}

impl From<&LivenessReport> for Evidence {
    fn from(report: &LivenessReport) -> Self {
        match report {
            LivenessReport { failure: None, pad_score: Some(_), .. } => Self::Live,
            // The rules passed, but the pack holds no model that could tell an attack.
            LivenessReport { failure: None, pad_score: None, .. } => Self::Unchecked,
            LivenessReport { failure: Some(LivenessReason::FaceNotLive), .. } => Self::Spoof,
            LivenessReport { failure: Some(reason), .. } => Self::Unsure(*reason),
        }
    }
}

/// One face in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The face box in pixels of the frame.
    pub bounds: Rect,
    /// The best candidate over the threshold; `None` for nobody.
    pub person: Option<PersonId>,
    /// Liveness in this frame.
    pub evidence: Evidence,
    /// Pixels to compare with those of the next frame; `None` when it is not checked.
    pub signature: Option<Signature>,
}

/// What to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A person was recognised and, where required, found live.
    Match,
    /// Nobody who is enrolled.
    UnknownFace,
    /// A presentation attack, on a person or by a stranger.
    SpoofSuspected,
    /// A person was recognised, and no picture allowed an answer on liveness.
    Denied(Reason),
}

/// A verdict, and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// What to report.
    pub verdict: Verdict,
    /// Which observation of the frame it is about.
    pub observation: usize,
    /// Number of the track, unique per [`Attempts`].
    pub track: u64,
    /// Frames of the track so far.
    pub frames: u32,
    /// Whether its frames agree on liveness; `None` before enough of them have answered.
    pub agreement: Option<Finding>,
    /// Whether the face changes; `None` when it is not checked.
    pub motion: Option<Finding>,
}

/// All attempts in front of one camera.
#[derive(Debug)]
pub struct Attempts {
    options: AttemptOptions,
    tracks: Vec<Track>,
    reported: HashMap<PersonId, Reported>,
    tracks_made: u64,
    frames: u64,
    now: Moment,
}

/// A face that is followed by its place.
#[derive(Clone, Debug)]
struct Track {
    id: u64,
    bounds: Rect,
    last_seen: Moment,
    /// Number of the frame that showed it last, so that no two faces of a frame share a track.
    last_frame: u64,
    frames: u32,
    /// When somebody was last recognised here, and who.
    recognised: Option<Moment>,
    person: Option<PersonId>,
    /// Frames in a row without a match, and the first of them.
    unknown: (u32, Moment),
    liveness: Agreement,
    stillness: Stillness,
    /// A recognised person waits here for an answer on liveness.
    waiting: Option<Waiting>,
    /// Who was reported here as a match.
    accepted: Option<PersonId>,
    stranger_reported: bool,
    spoof_reported: bool,
}

/// When a person was last seen, for each kind of report that was made; `None`: not made.
#[derive(Clone, Copy, Debug, Default)]
struct Reported {
    matched: Option<Moment>,
    denied: Option<Moment>,
    spoofed: Option<Moment>,
    /// When a frame last looked like an attack with this person's face.
    attacked: Option<Moment>,
}

impl Attempts {
    /// Nobody is there.
    pub fn new(options: AttemptOptions) -> Self {
        let cooldown = options.cooldown.max(COOLDOWN_MIN);
        Self {
            options: AttemptOptions { cooldown, ..options },
            tracks: Vec::new(),
            reported: HashMap::new(),
            tracks_made: 0,
            frames: 0,
            now: Moment::default(),
        }
    }

    /// Takes the faces of one frame, captured at `now`, and answers what to report.
    pub fn observe(&mut self, now: Moment, frame: &[Observation]) -> Vec<Outcome> {
        self.now = self.now.max(now);
        self.frames += 1;
        let now = self.now;
        self.tracks.retain(|track| now.since(track.last_seen) < TRACK_GAP_MAX);
        let mut outcomes = Vec::new();
        for (index, observation) in frame.iter().enumerate() {
            let mut track = self.take_track(observation.bounds);
            track.see(observation, now);
            if let Some(verdict) = self.judge(&mut track, observation) {
                outcomes.push(Outcome {
                    verdict,
                    observation: index,
                    track: track.id,
                    frames: track.frames,
                    agreement: track.liveness.finding(),
                    motion: track.stillness.finding(),
                });
            }
            self.keep_track(track);
        }
        outcomes
    }

    /// The nearest track that this frame has not used yet, or a new one.
    fn take_track(&mut self, bounds: Rect) -> Track {
        let free = |track: &Track| track.last_frame < self.frames;
        let nearest = self
            .tracks
            .iter()
            .enumerate()
            .filter(|(_, track)| free(track) && is_same_place(track.bounds, bounds))
            .min_by(|a, b| {
                let distance = |track: &Track| centre_distance(track.bounds, bounds);
                distance(a.1).total_cmp(&distance(b.1))
            })
            .map(|(at, _)| at);
        if let Some(at) = nearest {
            let mut track = self.tracks.swap_remove(at);
            track.last_frame = self.frames;
            return track;
        }
        self.tracks_made += 1;
        Track { last_frame: self.frames, ..Track::new(self.tracks_made, bounds, self.now) }
    }

    fn keep_track(&mut self, track: Track) {
        if self.tracks.len() >= TRACKS_MAX {
            let oldest = self.tracks.iter().enumerate().min_by_key(|(_, track)| track.last_seen);
            if let Some((at, _)) = oldest {
                self.tracks.swap_remove(at);
            }
        }
        self.tracks.push(track);
    }

    fn judge(&mut self, track: &mut Track, observation: &Observation) -> Option<Verdict> {
        match (&observation.person, self.options.liveness) {
            (None, _) => self.judge_stranger(track),
            (Some(person), LivenessPolicy::Off) => {
                self.refresh(person, Evidence::Unchecked);
                self.report_match(track, person)
            }
            (Some(person), LivenessPolicy::Required) => {
                let evidence = track.evidence(observation);
                self.refresh(person, evidence);
                self.judge_person(track, person, evidence)
            }
        }
    }

    fn judge_stranger(&self, track: &mut Track) -> Option<Verdict> {
        let required = self.options.liveness == LivenessPolicy::Required;
        if required && track.liveness.is_attack() && track.accepted.is_none() {
            let first = !track.spoof_reported;
            track.spoof_reported = true;
            return first.then_some(Verdict::SpoofSuspected);
        }
        let (frames, since) = track.unknown;
        let is_stranger = frames >= UNKNOWN_FRAMES_MIN && self.now.since(since) >= UNKNOWN_TIME_MIN;
        if !is_stranger || track.stranger_reported || track.spoof_reported {
            return None;
        }
        track.stranger_reported = true;
        Some(Verdict::UnknownFace)
    }

    fn judge_person(
        &mut self,
        track: &mut Track,
        person: &PersonId,
        evidence: Evidence,
    ) -> Option<Verdict> {
        if evidence == Evidence::Spoof {
            self.remember(person).attacked = Some(self.now);
        }
        let attacked = self.reported(person).attacked;
        let agreed = if attacked.is_some_and(|last| self.now.since(last) < ATTACK_MEMORY) {
            track.liveness.is_live_after_attack()
        } else {
            track.liveness.is_live()
        };
        if evidence == Evidence::Live && agreed {
            return self.report_match(track, person);
        }
        if track.accepted.as_ref() == Some(person) {
            return None;
        }
        if track.liveness.is_attack() {
            return self.report_spoof(track, person);
        }
        let waiting = track.waiting.get_or_insert_with(|| Waiting::new(self.now));
        waiting.count(evidence);
        if self.now.since(waiting.since()) < LIVENESS_WAIT {
            return None;
        }
        let reason = waiting.most_frequent();
        self.report_denied(person, reason)
    }

    fn report_match(&mut self, track: &mut Track, person: &PersonId) -> Option<Verdict> {
        track.accepted = Some(person.clone());
        track.waiting = None;
        let now = self.now;
        if self.reported(person).matched.is_some() {
            return None;
        }
        self.remember(person).matched = Some(now);
        Some(Verdict::Match)
    }

    fn report_spoof(&mut self, track: &mut Track, person: &PersonId) -> Option<Verdict> {
        let now = self.now;
        let first_here = !track.spoof_reported;
        track.spoof_reported = true;
        if !first_here || self.reported(person).spoofed.is_some() {
            return None;
        }
        self.remember(person).spoofed = Some(now);
        Some(Verdict::SpoofSuspected)
    }

    fn report_denied(&mut self, person: &PersonId, reason: Reason) -> Option<Verdict> {
        let now = self.now;
        let reported = self.reported(person);
        if reported.matched.is_some() || reported.denied.is_some() {
            return None;
        }
        self.remember(person).denied = Some(now);
        Some(Verdict::Denied(reason))
    }

    /// The person is seen: reports that are younger than the cool-down stay young, older ones are
    /// forgotten. A face that looks like an attack keeps nobody's reports young but those of
    /// attacks, or a photograph on a wall would silence the person it shows.
    fn refresh(&mut self, person: &PersonId, evidence: Evidence) {
        let (now, cooldown) = (self.now, self.options.cooldown);
        let Some(reported) = self.reported.get_mut(person) else { return };
        let is_attack = evidence == Evidence::Spoof;
        for (stamp, keeps_young) in [
            (&mut reported.matched, !is_attack),
            (&mut reported.denied, !is_attack),
            (&mut reported.spoofed, true),
        ] {
            let Some(last_seen) = *stamp else { continue };
            if now.since(last_seen) >= cooldown {
                *stamp = None;
            } else if keeps_young {
                *stamp = Some(now);
            }
        }
    }

    fn reported(&self, person: &PersonId) -> Reported {
        self.reported.get(person).copied().unwrap_or_default()
    }

    fn remember(&mut self, person: &PersonId) -> &mut Reported {
        if self.reported.len() >= PERSONS_MAX && !self.reported.contains_key(person) {
            let (now, cooldown) = (self.now, self.options.cooldown);
            self.reported.retain(|_, reported| now.since(reported.latest()) < cooldown);
            if self.reported.len() >= PERSONS_MAX {
                let oldest = self.reported.iter().min_by_key(|(_, reported)| reported.latest());
                let oldest = oldest.map(|(person, _)| person.clone());
                oldest.map(|person| self.reported.remove(&person));
            }
        }
        self.reported.entry(person.clone()).or_default()
    }
}

impl Track {
    fn new(id: u64, bounds: Rect, now: Moment) -> Self {
        Self {
            id,
            bounds,
            last_seen: now,
            last_frame: 0,
            frames: 0,
            recognised: None,
            person: None,
            unknown: (0, now),
            liveness: Agreement::default(),
            stillness: Stillness::default(),
            waiting: None,
            accepted: None,
            stranger_reported: false,
            spoof_reported: false,
        }
    }

    fn see(&mut self, observation: &Observation, now: Moment) {
        self.bounds = observation.bounds;
        self.last_seen = now;
        self.frames = self.frames.saturating_add(1);
        if observation.person.is_some() && observation.person != self.person {
            // Another face in this place: how live the one before was, and that it changed, says
            // nothing about it.
            self.liveness = Agreement::default();
            self.stillness = Stillness::default();
            self.person.clone_from(&observation.person);
        }
        self.stillness.see(observation.signature.as_ref(), now);
        match self.evidence(observation) {
            // A frame that may show somebody else speaks for nobody, and still against.
            Evidence::Live if observation.person == self.person => self.liveness.see(true),
            Evidence::Spoof => self.liveness.see(false),
            Evidence::Live | Evidence::Unsure(_) | Evidence::Unchecked => {}
        }
        if observation.person.is_some() {
            self.recognised = Some(now);
            self.unknown = (0, now);
        } else if self.recognised.is_none_or(|last| now.since(last) >= PERSON_HOLD) {
            self.accepted = None;
            self.waiting = None;
            if self.person.take().is_some() {
                self.liveness = Agreement::default();
            }
            let (frames, since) = self.unknown;
            self.unknown = (frames.saturating_add(1), if frames == 0 { now } else { since });
        }
    }

    /// The frame's evidence. A face that never changes is no live one, and one that has not changed
    /// yet, or of which that cannot be told, is not known to be.
    fn evidence(&self, observation: &Observation) -> Evidence {
        match observation.evidence {
            Evidence::Live if self.stillness.is_frozen() => Evidence::Spoof,
            Evidence::Live if observation.signature.is_none() || !self.stillness.is_moving() => {
                Evidence::Unchecked
            }
            evidence => evidence,
        }
    }
}

impl Reported {
    fn latest(&self) -> Moment {
        [self.matched, self.denied, self.spoofed, self.attacked]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or_default()
    }
}

fn is_same_place(a: Rect, b: Rect) -> bool {
    a.iou(b) >= IOU_MIN || centre_distance(a, b) <= CENTRE_DISTANCE_MAX
}

/// Distance of the centres in widths of the wider box; not finite for boxes without size.
fn centre_distance(a: Rect, b: Rect) -> f32 {
    a.centre().distance(b.centre()) / a.width.max(b.width)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::LazyLock;

    use super::*;
    use crate::face::detection::Detection;
    use crate::face::geometry::Point;
    use crate::face::image::Image;

    const COOLDOWN: Duration = Duration::from_secs(10);
    const STEP: Duration = Duration::from_millis(100);

    fn id(name: &str) -> PersonId {
        PersonId::new(name).unwrap()
    }

    fn at(x: f32) -> Rect {
        Rect { x, y: 100.0, width: 80.0, height: 100.0 }
    }

    fn face(x: f32, person: Option<&str>, evidence: Evidence) -> Observation {
        Observation { bounds: at(x), person: person.map(id), evidence, signature: None }
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

    /// The same faces, which differ from those of the frame before.
    fn moving(frame: &[Observation], number: usize) -> Vec<Observation> {
        let signature = Some(pixels(number));
        frame
            .iter()
            .map(|seen| Observation { signature: signature.clone(), ..seen.clone() })
            .collect()
    }

    fn alice(evidence: Evidence) -> Observation {
        face(0.0, Some("alice"), evidence)
    }

    fn stranger() -> Observation {
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
            let options = AttemptOptions { cooldown: COOLDOWN, liveness };
            let now = Moment::from_nanos(1 << 40);
            Self { attempts: Attempts::new(options), now, frame: 0, log: Vec::new() }
        }

        fn show(&mut self, times: usize, frame: &[Observation]) -> &mut Self {
            for _ in 0..times {
                let faces = moving(frame, self.frame);
                for outcome in self.attempts.observe(self.now, &faces) {
                    assert!(outcome.observation < frame.len());
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
            let options = AttemptOptions { cooldown: COOLDOWN, liveness: LivenessPolicy::Required };
            let mut attempts = Attempts::new(options);
            let mut now = Moment::from_nanos(1 << 40);
            let mut verdicts = Vec::new();
            for _ in 0..frames {
                let seen = moving(&[alice(Evidence::Live)], 0);
                verdicts.extend(attempts.observe(now, &seen).into_iter().map(|o| o.verdict));
                now = now.plus(STEP);
            }
            verdicts
        };
        assert_eq!(still(100), [Verdict::SpoofSuspected]);
        let mut exchanged = Scene::new(LivenessPolicy::Required);
        exchanged.show(10, &[stranger()]);
        let still = moving(&[alice(Evidence::Live)], 0);
        for frame in 0..8 {
            let now = exchanged.now.plus(STEP * frame);
            assert_eq!(exchanged.attempts.observe(now, &still), [], "the exchange is no change");
        }
        let mut attempts = Attempts::new(AttemptOptions {
            cooldown: COOLDOWN,
            liveness: LivenessPolicy::Required,
        });
        let now = Moment::from_nanos(1 << 40);
        let unknown = [alice(Evidence::Live)];
        let told: usize =
            (0..20).map(|n| attempts.observe(now.plus(STEP * n), &unknown).len()).sum();
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
        let crowd: Vec<Observation> = names
            .iter()
            .enumerate()
            .map(|(n, name)| face(n as f32 * 200.0, Some(name), Evidence::Live))
            .collect();
        scene.show(1, &crowd[..1000]);
        assert_eq!(scene.log.len(), 1000);
        scene.show(3, &crowd[..1000]);
        assert_eq!(scene.log.len(), 1000);
        scene.show(1, &crowd);
        assert!(scene.attempts.tracks.len() <= TRACKS_MAX);
        assert!(scene.attempts.reported.len() <= PERSONS_MAX);
        let strangers: Vec<Observation> =
            (0..1000).map(|n| face(n as f32 * 200.0, None, Evidence::Live)).collect();
        scene.show(20, &strangers);
        assert!(scene.attempts.tracks.len() <= TRACKS_MAX);
    }

    #[test]
    fn boxes_that_are_not_numbers_do_no_harm() {
        let mut scene = Scene::new(LivenessPolicy::Off);
        for value in [f32::NAN, f32::INFINITY, f32::MIN, 0.0] {
            let bounds = Rect { x: value, y: value, width: value, height: value };
            let person = Some(id("alice"));
            scene.show(
                5,
                &[Observation { bounds, person, evidence: Evidence::Live, signature: None }],
            );
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

    fn evidence() -> impl Strategy<Value = Evidence> {
        prop_oneof![
            3 => Just(Evidence::Live),
            2 => Just(Evidence::Spoof),
            1 => Just(Evidence::Unsure(LivenessReason::FaceTooSmall)),
            1 => Just(Evidence::Unchecked),
        ]
    }

    fn observation() -> impl Strategy<Value = Observation> {
        let person = prop::option::of(prop::sample::select(vec!["alice", "bob", "carol"]));
        (0..6_u8, person, evidence())
            .prop_map(|(place, person, evidence)| face(f32::from(place) * 70.0, person, evidence))
    }

    fn frames() -> impl Strategy<Value = Vec<(i64, Vec<Observation>)>> {
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
            let mut attempts = Attempts::new(AttemptOptions { cooldown: COOLDOWN, liveness });
            let mut ledger = Ledger::default();
            let mut clock: i64 = 1 << 50;
            let mut latest = Moment::default();
            let mut stranger_reports: HashMap<u64, u32> = HashMap::new();
            for (number, (step_ms, frame)) in frames.into_iter().enumerate() {
                clock += step_ms * 1_000_000;
                latest = latest.max(Moment::from_nanos(clock as u64));
                let frame = moving(&frame, number);
                let outcomes = attempts.observe(Moment::from_nanos(clock as u64), &frame);
                for (index, seen) in frame.iter().enumerate() {
                    let mine = outcomes.iter().filter(|outcome| outcome.observation == index);
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
                prop_assert!(attempts.tracks.len() <= TRACKS_MAX);
            }
            prop_assert!(stranger_reports.values().all(|times| *times <= 2));
        }
    }
}
