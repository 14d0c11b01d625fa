//! Detections joined over time: which face of a frame is which face of the frames before.
//!
//! Each track expects its face where it would be by now at its present velocity, and face and track
//! belong together when the boxes overlap there or the centres are near. All pairs of a frame are
//! joined nearest first, by the mean distance of the five landmarks, so that two people who cross
//! keep their tracks: where the boxes meet, the directions still differ. A missed frame costs
//! nothing, a track ends after [`TRACK_GAP_MAX`] without its face.
//!
//! A track says "the face that was there", never "this person": another face that takes the place
//! of the one before inherits the track, and whoever decides about people has to notice that.
//! Nothing is kept but places. Time that runs backwards counts as standing still.

use std::time::Duration;

use crate::clock::Moment;
use crate::face::detection::Detection;
use crate::face::geometry::Point;
use crate::face::geometry::Rect;

/// Most faces that are followed at one time; the one not seen for longest goes.
pub const TRACKS_MAX: usize = 64;
/// A face that was not seen for this long has left; the next one there is somebody new.
pub const TRACK_GAP_MAX: Duration = Duration::from_secs(2);

/// Two boxes belong to one face when their overlap reaches this intersection over union…
const IOU_MIN: f32 = 0.2;
/// …or when their centres are nearer than this share of the wider box: someone who walks.
const CENTRE_DISTANCE_MAX: f32 = 0.5;
/// Widths of one face in two frames differ by this factor at most: somebody behind is somebody
/// else. A walker who comes from 2 m to 1 m within the longest gap doubles.
const WIDTH_RATIO_MAX: f32 = 2.5;
/// A velocity is believed for this long without news; people turn round.
const PREDICTION_MAX: Duration = Duration::from_millis(500);
/// Fastest face, in widths of its box a second: a runner's 5 m/s at a face of 16 cm is 31.
const SPEED_WIDTHS_MAX: f32 = 30.0;
/// Share of the latest step in the velocity: boxes jitter by a few pixels, and two steps should
/// tell a direction.
const VELOCITY_GAIN: f32 = 0.5;
/// Shortest time between two frames that a velocity is taken from: time stamps jitter by some
/// milliseconds, and a velocity from them would be noise.
const STEP_MIN: Duration = Duration::from_millis(5);

/// Number of a track, unique per [`Tracker`]; from 1.
pub type TrackId = u64;

/// All faces in front of one camera. Cheap to clone: places and numbers.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    tracks: Vec<Track>,
    made: TrackId,
    frames: u64,
    now: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Track {
    id: TrackId,
    bounds: Rect,
    landmarks: [Point; 5],
    /// Pixels a second.
    velocity: Point,
    last_seen: Moment,
    /// Number of the frame that showed it last; moments of two frames may be equal.
    last_frame: u64,
}

/// A track and a face that may belong together.
struct Pair {
    track: usize,
    face: usize,
    cost: f32,
}

impl Tracker {
    /// Nobody is there.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the faces of one frame, captured at `now`, and answers the track of each; no two share
    /// one.
    pub fn follow(&mut self, now: Moment, faces: &[Detection]) -> Vec<TrackId> {
        self.now = self.now.max(now);
        self.frames += 1;
        let (now, frame) = (self.now, self.frames);
        self.tracks.retain(|track| now.since(track.last_seen) < TRACK_GAP_MAX);
        let mut found: Vec<Option<TrackId>> = vec![None; faces.len()];
        let mut taken = vec![false; self.tracks.len()];
        for Pair { track, face, .. } in self.pairs(faces) {
            if !taken[track] && found[face].is_none() {
                taken[track] = true;
                self.tracks[track].see(now, &faces[face]);
                self.tracks[track].last_frame = frame;
                found[face] = Some(self.tracks[track].id);
            }
        }
        let ids =
            found.into_iter().zip(faces).map(|(id, face)| id.unwrap_or_else(|| self.add(face)));
        ids.collect()
    }

    /// Whether a track has not ended.
    pub fn is_alive(&self, id: TrackId) -> bool {
        self.tracks.iter().any(|track| track.id == id)
    }

    /// Number of tracks, at most [`TRACKS_MAX`].
    pub fn len(&self) -> usize {
        self.tracks.len()
    }

    /// Whether nobody is there, or was a moment ago.
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Every pair that is possible, nearest first.
    fn pairs(&self, faces: &[Detection]) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (at, track) in self.tracks.iter().enumerate() {
            let expected = track.expected(self.now);
            for (face, seen) in faces.iter().enumerate() {
                let cost = cost(&expected, seen);
                let near = is_same_place(expected.bounds, seen.bounds)
                    || is_same_place(track.bounds, seen.bounds);
                if near && is_same_size(track.bounds, seen.bounds) {
                    pairs.push(Pair { track: at, face, cost });
                }
            }
        }
        pairs.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        pairs
    }

    fn add(&mut self, face: &Detection) -> TrackId {
        if self.tracks.len() >= TRACKS_MAX {
            let oldest = self.tracks.iter().enumerate().min_by_key(|(_, track)| track.last_frame);
            if let Some((at, _)) = oldest {
                self.tracks.remove(at);
            }
        }
        self.made += 1;
        self.tracks.push(Track {
            id: self.made,
            bounds: face.bounds,
            landmarks: face.landmarks,
            velocity: Point::default(),
            last_seen: self.now,
            last_frame: self.frames,
        });
        self.made
    }
}

impl Track {
    fn see(&mut self, now: Moment, face: &Detection) {
        let step = now.since(self.last_seen);
        if step >= STEP_MIN {
            let (from, to) = (self.bounds.centre(), face.bounds.centre());
            let fastest = SPEED_WIDTHS_MAX * face.bounds.width.max(1.0);
            let mixed = |old: f32, way: f32| {
                let latest = way / step.as_secs_f32();
                let new = old + (latest - old) * VELOCITY_GAIN;
                if new.is_finite() { new.clamp(-fastest, fastest) } else { 0.0 }
            };
            self.velocity = Point::new(
                mixed(self.velocity.x, to.x - from.x),
                mixed(self.velocity.y, to.y - from.y),
            );
        }
        (self.bounds, self.landmarks, self.last_seen) = (face.bounds, face.landmarks, now);
    }

    /// Where the face should be by now.
    fn expected(&self, now: Moment) -> Self {
        let ahead = now.since(self.last_seen).min(PREDICTION_MAX).as_secs_f32();
        let (dx, dy) = (self.velocity.x * ahead, self.velocity.y * ahead);
        let bounds = Rect { x: self.bounds.x + dx, y: self.bounds.y + dy, ..self.bounds };
        let landmarks = self.landmarks.map(|point| Point::new(point.x + dx, point.y + dy));
        Self { bounds, landmarks, ..*self }
    }
}

/// How far a face is from where it is expected, in widths: the mean distance of the landmarks.
fn cost(expected: &Track, seen: &Detection) -> f32 {
    let pairs = expected.landmarks.iter().zip(&seen.landmarks);
    let mean = pairs.map(|(a, b)| a.distance(*b)).sum::<f32>() / 5.0;
    mean / expected.bounds.width.max(seen.bounds.width)
}

fn is_same_place(a: Rect, b: Rect) -> bool {
    a.iou(b) >= IOU_MIN
        || a.centre().distance(b.centre()) / a.width.max(b.width) <= CENTRE_DISTANCE_MAX
}

fn is_same_size(a: Rect, b: Rect) -> bool {
    a.width <= b.width * WIDTH_RATIO_MAX && b.width <= a.width * WIDTH_RATIO_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    fn sized(x: f32, y: f32, width: f32) -> Detection {
        let bounds = Rect { x, y, width, height: 1.25 * width };
        let place = |dx: f32, dy: f32| Point::new(x + dx * width, y + dy * width);
        let landmarks = [
            place(0.3, 0.5),
            place(0.7, 0.5),
            place(0.5, 0.75),
            place(0.35, 1.0),
            place(0.65, 1.0),
        ];
        Detection { bounds, landmarks, confidence: 0.9 }
    }

    fn at(x: f32) -> Detection {
        sized(x, 100.0, 80.0)
    }

    /// Frames 100 ms apart; the tracks of each.
    fn play(frames: &[Vec<Detection>]) -> Vec<Vec<TrackId>> {
        let mut tracker = Tracker::new();
        let mut now = Moment::from_nanos(1 << 40);
        let mut all = Vec::new();
        for faces in frames {
            all.push(tracker.follow(now, faces));
            now = now.plus(STEP);
        }
        all
    }

    #[test]
    fn a_face_keeps_its_track_while_it_walks_and_through_missed_frames() {
        // Nearly a box a frame once it walks: boxes no longer overlap enough, the prediction does.
        let places =
            (0..20).map(|n| if n < 5 { 40.0 * n as f32 } else { 160.0 + 75.0 * (n - 4) as f32 });
        let frames: Vec<_> = places.map(|x| vec![at(x)]).collect();
        assert!(play(&frames).iter().all(|ids| ids == &[1]));
        let missed: Vec<_> =
            (0..20).map(|n| if n % 4 == 3 { vec![] } else { vec![at(35.0 * n as f32)] }).collect();
        assert!(play(&missed).iter().flatten().all(|id| *id == 1));
    }

    #[test]
    fn two_people_who_cross_keep_their_tracks() {
        for order in [[0, 1], [1, 0]] {
            let frame = |n: usize| {
                let faces = [at(24.0 * n as f32), at(600.0 - 24.0 * n as f32)];
                // While they overlap the detector sees one of them, or none.
                match n {
                    12 => vec![faces[0]],
                    13 => vec![],
                    _ => order.map(|index| faces[index]).to_vec(),
                }
            };
            let all = play(&(0..26).map(frame).collect::<Vec<_>>());
            assert_eq!(all.first(), all.last(), "{all:?}");
            assert_eq!(all[25].len(), 2);
            assert!(all.iter().flatten().all(|id| *id <= 2), "{all:?}");
        }
    }

    #[test]
    fn who_left_is_somebody_new_and_who_stands_behind_is_somebody_else() {
        let gap = |frames: usize| {
            let mut all = vec![vec![at(0.0)]];
            all.extend(vec![vec![]; frames]);
            all.push(vec![at(0.0)]);
            play(&all).pop().unwrap()[0]
        };
        assert_eq!((gap(18), gap(19)), (1, 2), "two seconds");
        let behind = play(&[vec![sized(0.0, 0.0, 200.0)], vec![sized(60.0, 60.0, 70.0)]]);
        assert_eq!(behind, [[1], [2]]);
        let nearer = play(&[vec![sized(0.0, 0.0, 100.0)], vec![sized(-20.0, -20.0, 140.0)]]);
        assert_eq!(nearer, [[1], [1]]);
    }

    #[test]
    fn the_nearest_pair_is_joined_first_whatever_the_order() {
        let all =
            play(&[vec![at(0.0), at(100.0)], vec![at(45.0), at(110.0)], vec![at(130.0), at(90.0)]]);
        assert_eq!(all, [[1, 2], [1, 2], [2, 1]]);
    }

    #[test]
    fn time_that_runs_backwards_and_a_crowd_do_no_harm() {
        let mut tracker = Tracker::new();
        let late = Moment::from_nanos(1 << 50);
        assert_eq!(tracker.follow(late, &[at(0.0)]), [1]);
        assert_eq!(tracker.follow(Moment::default(), &[at(10.0)]), [1]);
        let crowd: Vec<_> = (0..1000).map(|n| at(n as f32 * 200.0)).collect();
        let ids = tracker.follow(late, &crowd);
        assert_eq!(ids.len(), 1000);
        assert_eq!(tracker.len(), TRACKS_MAX);
        assert!(!tracker.is_alive(2) && tracker.is_alive(1000));
        tracker.follow(late.plus(TRACK_GAP_MAX), &[]);
        assert!(tracker.is_empty());
    }

    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            10 => -100.0_f32..1000.0,
            1 => Just(f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::MIN),
            1 => Just(0.0),
        ]
    }

    proptest! {
        #[test]
        fn every_face_has_a_track_of_its_own_whatever_the_input(
            frames in prop::collection::vec(
                (any::<u64>(), prop::collection::vec((number(), number(), number()), 0..12)), 0..40),
        ) {
            let mut tracker = Tracker::new();
            for (now, faces) in frames {
                let faces: Vec<_> = faces.into_iter().map(|(x, y, width)| sized(x, y, width)).collect();
                let mut ids = tracker.follow(Moment::from_nanos(now), &faces);
                prop_assert_eq!(ids.len(), faces.len());
                prop_assert!(ids.iter().all(|id| tracker.is_alive(*id)));
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(ids.len(), faces.len(), "no two faces share a track");
                prop_assert!(tracker.len() <= TRACKS_MAX);
            }
        }
    }
}
