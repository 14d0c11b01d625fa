//! The frame loop of one camera: frame, faces, tracks, shots, liveness, templates, search, attempt,
//! event or door.
//!
//! One thread per camera takes the newest frame, has it analysed on the recognition pool (the
//! camera's lane) unless nothing has changed while nobody was there, or the board is too hot for
//! every frame, and decides here what to report. A recognised person goes to the door, if there is one, which then answers for the event.
//! Frames that come meanwhile are lost on purpose: the newest one wins. Events are left to the
//! [`journal`](mod@crate::daemon::journal): the loop waits for no disk and no broker.
//!
//! [`Pipeline::run`] never fails; [`Pipeline::run_once`] is one frame and uses `?`. Pictures and
//! templates end with the frame: nothing of a stranger is kept but a rectangle and, while the face is
//! in view, the few pixels of its latest frame that tell whether it changes.

pub mod analysis;
pub mod gate;
pub mod notice;
pub mod people;
pub mod status;

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tracing::{debug, info, warn};

use crate::access::attempt::AttemptOptions;
use crate::access::attempt::Attempts;
use crate::access::attempt::LivenessPolicy;
use crate::access::attempt::lookout::Lookout;
use crate::access::attempt::observation::Outcome;
use crate::access::attempt::observation::Sight;
use crate::access::attempt::observation::Verdict;
use crate::access::event::Event;
use crate::access::grant::FACE_SEEN_MAX;
use crate::access::grant::Facts;
use crate::access::grant::Validity;
use crate::board::FrameLimit;
use crate::board::pace::Pace;
use crate::bus::Bus;
use crate::camera::Frame;
use crate::camera::pixels::Layout;
use crate::camera::pixels::PixelError;
use crate::camera::presence::Glance;
use crate::camera::presence::LumaGrid;
use crate::camera::presence::Presence;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::config::CameraConfig;
use crate::config::LivenessConfig;
use crate::daemon::journal::Journal;
use crate::daemon::pipeline::analysis::Analysis;
use crate::daemon::pipeline::analysis::LivenessCheck;
use crate::daemon::pipeline::analysis::SeenFace;
use crate::daemon::pipeline::gate::DoorGate;
use crate::daemon::pipeline::notice::Notice;
use crate::daemon::pipeline::notice::Writer;
use crate::daemon::pipeline::people::People;
use crate::daemon::pipeline::status::PipelineStatus;
use crate::face::crop::thumbnail;
use crate::face::geometry::Rect;
use crate::face::image::Image;
use crate::gallery::person::Member;
use crate::picture::encode_jpeg;
use crate::recognition::RecognitionError;
use crate::recognition::Recognizer;
use crate::recognition::pool::Lane;
use crate::recognition::pool::PoolError;
use crate::recognition::pool::RecognizerPool;
use crate::roster::Roster;
use crate::shutdown::StopSignal;

/// Longest wait for a frame before the stop signal is looked at.
const FRAME_WAIT: Duration = Duration::from_millis(500);
/// Pause when there was no frame: a camera that has ended answers at once.
const NO_FRAME_PAUSE: Duration = Duration::from_millis(50);
/// A frame older than this shows the past and is not judged.
const FRAME_AGE_MAX: Duration = Duration::from_secs(2);

/// Wait for the frame of a second look: two frames of a slow camera.
const SECOND_LOOK_WAIT: Duration = Duration::from_millis(150);
/// JPEG quality of the pictures of decisions: no visible blocks, a fifth of the size of quality 100.
const PICTURE_QUALITY: u8 = 88;

/// Takes the newest frame, waiting for one at most so long; `None` when there was none.
pub type NewestFrame = Box<dyn FnMut(Duration) -> Option<Frame> + Send>;

/// What a frame loop works with.
pub struct PipelineParts {
    /// Name, collection, threshold and cool-down.
    pub camera: CameraConfig,
    /// Whether a match must be live.
    pub liveness: LivenessConfig,
    /// The camera.
    pub frames: NewestFrame,
    /// The networks.
    pub pool: RecognizerPool,
    /// The people.
    pub roster: Arc<Roster>,
    /// Where events go.
    pub journal: Journal,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifies this run of the daemon in events.
    pub boot: Arc<str>,
    /// The door behind the camera; `None`: recognition is only reported.
    pub door: Option<Arc<dyn DoorGate>>,
    /// How many frames a second may be judged now.
    pub limit: Arc<FrameLimit>,
    /// Where the faces of decisions go as pictures; `None`: nowhere, which is the default.
    pub pictures: Option<Arc<dyn Bus>>,
}

/// Why a frame was not judged.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// There is nobody to search: everybody would be a stranger.
    #[error(
        "camera `{camera}` searches the collection `{collection}`, which does not exist; create it \
         or correct the camera's `collection`"
    )]
    NoCollection {
        /// Name of the camera.
        camera: String,
        /// As configured.
        collection: String,
    },
    /// The frame is damaged.
    #[error("camera `{camera}` delivers frames that cannot be read: {error}")]
    Pixels {
        /// Name of the camera.
        camera: String,
        /// What is wrong.
        error: PixelError,
    },
    /// A network failed.
    #[error("recognition failed: {0}")]
    Recognition(#[from] RecognitionError),
    /// The workers did not take or finish the frame.
    #[error("the frame was not analysed: {0}")]
    Pool(#[from] PoolError),
}

/// What became of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There was no frame.
    NoFrame,
    /// The frame was too old to be judged.
    Stale,
    /// Nothing has changed while nobody was there.
    Rested,
    /// The frame was let go to spare a hot board.
    Limited,
    /// The frame was judged.
    Judged {
        /// Faces in it, at most [`analysis::FACES_PER_FRAME_MAX`].
        faces: usize,
        /// Events that it caused.
        events: usize,
    },
}

/// The frame loop of one camera.
pub struct Pipeline {
    parts: PipelineParts,
    attempts: Attempts,
    presence: Presence,
    pace: Pace,
    check: LivenessCheck,
    writer: Writer,
    status: Arc<PipelineStatus>,
}

impl Pipeline {
    /// A loop that has not started.
    pub fn new(parts: PipelineParts) -> Self {
        let info = parts.pool.info();
        let (check, policy) = match (parts.liveness.required, info.has_liveness) {
            (false, _) => (LivenessCheck::Skip, LivenessPolicy::Off),
            (true, true) => (LivenessCheck::Run, LivenessPolicy::Required),
            (true, false) => (LivenessCheck::Skip, LivenessPolicy::Required),
        };
        let status = Arc::new(PipelineStatus::new(&parts.camera.name));
        if policy == LivenessPolicy::Required && check == LivenessCheck::Skip {
            let problem = format!(
                "liveness is required and the model pack `{}` cannot check it, so nobody is \
                 reported as a match; install a pack with liveness models, or set \
                 liveness.required = false",
                info.pack
            );
            warn!(camera = parts.camera.name, problem, "no liveness check");
            status.set_standing_problem(problem);
        }
        let options = AttemptOptions {
            cooldown: parts.camera.cooldown,
            liveness: policy,
            face_px_min: parts.door.as_ref().map_or(0.0, |door| door.face_px_min()),
            asks_motion: parts.door.is_some(),
        };
        Self {
            attempts: Attempts::new(options),
            presence: Presence::new(),
            pace: Pace::default(),
            check,
            writer: Writer::new(&parts.camera, Arc::clone(&parts.boot)),
            status,
            parts,
        }
    }

    /// Counters, latencies and problems, for whoever reports on them.
    pub fn status(&self) -> Arc<PipelineStatus> {
        Arc::clone(&self.status)
    }

    /// Judges frames until the stop.
    pub fn run(mut self, stop: &StopSignal) {
        let camera = self.parts.camera.name.clone();
        info!(camera, collection = %self.parts.camera.collection, "watching");
        while !stop.stopped() {
            match self.run_once() {
                Ok(Turn::NoFrame) => {
                    stop.sleep(NO_FRAME_PAUSE);
                }
                Ok(Turn::Stale | Turn::Limited) => {}
                Ok(Turn::Judged { .. } | Turn::Rested) => {
                    if self.status.set_problem(None) {
                        info!(camera, "frames are judged again");
                    }
                }
                Err(error) => self.note(&error),
            }
        }
        info!(camera, "stopped watching");
    }

    /// Waits for one frame and judges it.
    pub fn run_once(&mut self) -> Result<Turn, PipelineError> {
        let Some(frame) = (self.parts.frames)(FRAME_WAIT) else {
            // What is kept of faces goes when they have gone, also while the camera is silent.
            let outcomes = self.attempts.observe_nobody(self.parts.clock.now());
            if let Ok(people) = self.people() {
                self.report_all(&outcomes, &[], &people);
            }
            return Ok(Turn::NoFrame);
        };
        self.status.count_frame();
        let captured = frame.captured.min(self.parts.clock.now());
        if self.parts.clock.now().since(captured) > FRAME_AGE_MAX {
            self.status.count_stale();
            return Ok(Turn::Stale);
        }
        // Before the frame is decoded. To everything below, the camera is just slower.
        if !self.pace.takes(captured, self.parts.limit.get(), self.attempts.is_occupied()) {
            self.status.count_limited();
            return Ok(Turn::Limited);
        }
        let people = self.people()?;
        let Some(image) = self.glance(&frame, captured)? else {
            self.status.count_gated();
            let outcomes = self.attempts.observe_nobody(captured);
            self.report_all(&outcomes, &[], &people);
            return Ok(Turn::Rested);
        };
        drop(frame);
        let image = Arc::new(image);
        let (faces, lookout) = self.analyse(Arc::clone(&image), captured, people.clone())?;
        let observations: Vec<_> = faces.iter().map(SeenFace::observation).collect();
        let known = |index: usize, person: &_| {
            let looked = faces.get(index)?.looked.as_ref()?;
            people.cosine(&looked.template, person)
        };
        let identification = people.identification();
        let sight = Sight { captured, lookout, faces: &observations };
        let outcomes = self.attempts.observe(sight, identification, &known);
        let now = self.parts.clock.now();
        if !faces.is_empty() {
            self.status.see_faces(faces.len(), now, now.since(captured));
        }
        self.report_all(&outcomes, &faces, &people);
        self.show(&outcomes, &faces, &image);
        Ok(Turn::Judged { faces: faces.len(), events: outcomes.len() })
    }

    fn people(&self) -> Result<People, PipelineError> {
        let camera = &self.parts.camera;
        let gallery = self.parts.roster.gallery(&camera.collection);
        let gallery = gallery.ok_or_else(|| PipelineError::NoCollection {
            camera: camera.name.clone(),
            collection: camera.collection.to_string(),
        })?;
        Ok(People::new(gallery, camera, self.parts.pool.info()))
    }

    /// The frame in RGB; `None` when nothing has changed. A format that shows its luma is only
    /// converted when it has.
    fn glance(&mut self, frame: &Frame, captured: Moment) -> Result<Option<Image>, PipelineError> {
        let occupied = self.attempts.is_occupied();
        let layout = Layout { width: frame.width, height: frame.height, stride: frame.stride };
        let camera = &self.parts.camera.name;
        let to_image = || {
            let named = |error| PipelineError::Pixels { camera: camera.clone(), error };
            frame.to_image().map_err(named)
        };
        let grid = LumaGrid::of_bytes(frame.format, layout, &frame.bytes);
        let (grid, image) = if let Some(grid) = grid {
            (grid, None)
        } else {
            let image = to_image()?;
            (LumaGrid::of_image(&image), Some(image))
        };
        match self.presence.see(captured, Some(&grid), occupied) {
            Glance::Look => Ok(Some(image.map_or_else(to_image, Ok)?)),
            Glance::Rest => Ok(None),
        }
    }

    fn analyse(
        &self,
        image: Arc<Image>,
        captured: Moment,
        people: People,
    ) -> Result<(Vec<SeenFace>, Lookout), PipelineError> {
        let lookout = self.attempts.lookout();
        let mut analysis = Analysis { check: self.check, captured, lookout, people };
        let job = move |recognizer: &mut _| {
            analysis.run(recognizer, &image).map(|faces| (faces, analysis.lookout))
        };
        Ok(self.parts.pool.run_blocking(Lane::Camera, job)??)
    }

    /// The face of the latest decision, where pictures of decisions are asked for.
    fn show(&self, outcomes: &[Outcome], faces: &[SeenFace], image: &Image) {
        let Some(pictures) = &self.parts.pictures else { return };
        let shown = outcomes.iter().rev().find_map(|outcome| faces.get(outcome.observation?));
        if let Some(face) = shown {
            let jpeg = encode_jpeg(&thumbnail(image, &face.detection), PICTURE_QUALITY);
            pictures.publish_image(jpeg.into());
        }
    }

    fn report_all(&mut self, outcomes: &[Outcome], faces: &[SeenFace], people: &People) {
        let failed = self.attempts.take_failed();
        if let Some(door) = &self.parts.door {
            door.failed_attempts(failed);
        }
        for outcome in outcomes {
            let face = outcome.observation.and_then(|index| faces.get(index));
            let member = outcome.person.as_ref().and_then(|person| people.member(person));
            let PipelineParts { clock, .. } = &self.parts;
            let age = clock.now().since(outcome.captured);
            let notice = Notice { outcome, face, person: member, age, now: clock.utc() };
            let event = self.writer.event(&notice);
            let place = face.map(|face| face.detection.bounds);
            self.report(outcome, event, member, place);
        }
    }

    /// When the face was last seen. On a slow board the frame that a decision rests on is old by the
    /// time of the decision; then one more look at the newest frame, by the detector alone, tells
    /// whether somebody still stands there.
    fn last_seen(&mut self, outcome: &Outcome, place: Option<Rect>) -> Moment {
        let is_old = self.parts.clock.now().since(outcome.seen) > FACE_SEEN_MAX / 2;
        let (true, Some(place)) = (is_old && self.parts.door.is_some(), place) else {
            return outcome.seen;
        };
        let Some(frame) = (self.parts.frames)(SECOND_LOOK_WAIT) else { return outcome.seen };
        self.status.count_frame();
        let captured = frame.captured.min(self.parts.clock.now());
        let Ok(image) = frame.to_image() else { return outcome.seen };
        let job = move |recognizer: &mut Recognizer| recognizer.places_near(&image);
        match self.parts.pool.run_blocking(Lane::Camera, job) {
            Ok(Ok(faces)) if faces.iter().any(|face| is_there(*face, place)) => captured,
            _ => outcome.seen,
        }
    }

    /// A recognised person is the door's to decide; what failed goes by the door, which counts it.
    fn report(
        &mut self,
        outcome: &Outcome,
        event: Event,
        member: Option<&Arc<Member>>,
        place: Option<Rect>,
    ) {
        let seen = match outcome.verdict {
            Verdict::Match => self.last_seen(outcome, place),
            _ => outcome.seen,
        };
        let PipelineParts { journal, door, .. } = &self.parts;
        let Some(door) = door else {
            return journal.put(event);
        };
        match (outcome.verdict, outcome.identity, member) {
            (Verdict::Match, Some(identity), Some(member)) => {
                let facts = Facts {
                    identity,
                    live: outcome.live,
                    flaw: outcome.flaw,
                    captured: outcome.captured,
                    seen,
                    face_px: outcome.face_px,
                    validity: Validity::default(),
                    door: None,
                    fault: None,
                };
                if door.decide(facts, event, &member.metadata).is_some() {
                    self.attempts.try_again(&member.id);
                }
            }
            // A match has both, by the frame that it was made on.
            _ => journal.put(door.failed(event)),
        }
    }

    /// One line per change, not one per frame.
    fn note(&self, error: &PipelineError) {
        self.status.count_failure();
        if let PipelineError::Pool(PoolError::Busy) = error {
            // The next frame is younger than the one that would have waited.
            debug!(camera = self.parts.camera.name, "frame skipped, all workers are busy");
            return;
        }
        if self.status.set_problem(Some(error.to_string())) {
            warn!(camera = self.parts.camera.name, %error, "frames are not judged");
        }
    }
}

/// Whether a face stands where one stood a moment ago: nearer than its own width.
fn is_there(face: Rect, place: Rect) -> bool {
    face.centre().distance(place.centre()) <= face.width.max(place.width)
}

impl Drop for Pipeline {
    /// Also when the loop panics: its silence has to be noticed.
    fn drop(&mut self) {
        self.status.end();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, VecDeque},
        num::NonZeroU32,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::*;
    use crate::access::event::{EVENT_LIFETIME, EventType, LivenessResult, Reason};
    use crate::access::grant::Liveness;
    use crate::camera::PixelFormat;
    use crate::clock::{SimulatedClock, UtcTime};
    use crate::config::CameraSource;
    use crate::daemon::journal::{EVENTS_WAITING_MAX, JournalWriter, journal};
    use crate::daemon::pipeline::analysis::FACES_PER_FRAME_MAX;
    use crate::daemon::snapshot::SnapshotSources;
    use crate::face::comparison::Score;
    use crate::face::eyes::EyeRatio;
    use crate::face::liveness::Cue;
    use crate::face::template::Template;
    use crate::gallery::names::{CollectionName, PersonId};
    use crate::gallery::person::FaceStorageType;
    use crate::inference::Pack;
    use crate::recognition::pool::PoolOptions;
    use crate::recognition::scripted::{
        self, EMBEDDING, Face, Kind, ScriptedLoader, embedding_of, picture_of, pool_of,
    };
    use crate::roster::{Enrolment, EnrolmentMode};
    use crate::shutdown;
    use crate::store::memory::MemoryStore;
    use crate::store::{ImageChange, Store};
    use crate::telemetry::Metrics;

    const START: UtcTime = UtcTime::from_millis(1_700_000_000_000);
    /// Time between a frame and the decision on it.
    const LATENCY: Duration = Duration::from_millis(40);
    /// Time between two frames.
    const PACE: Duration = Duration::from_millis(100);

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Event>>, Mutex<Vec<Arc<[u8]>>>);

    impl Bus for Recorder {
        fn offer(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }

        fn publish_image(&self, jpeg: Arc<[u8]>) {
            self.1.lock().unwrap().push(jpeg);
        }
    }

    fn staffer(person: u8) -> Enrolment {
        Enrolment {
            id: PersonId::new(&format!("P{person}")).unwrap(),
            name: format!("Person {person}"),
            metadata: BTreeMap::from([("team".to_string(), "7".to_string())]),
            storage: FaceStorageType::NoStorage,
            template: Template::from_embedding(&embedding_of(person)).unwrap(),
            eye_ratio: None,
            same_face_min: None,
            image: ImageChange::Keep,
            mode: EnrolmentMode::Replace,
        }
    }

    struct Rig {
        clock: Arc<SimulatedClock>,
        store: Arc<MemoryStore>,
        roster: Arc<Roster>,
        bus: Arc<Recorder>,
        frames: Arc<Mutex<VecDeque<Frame>>>,
        writer: JournalWriter,
        metrics: Arc<Metrics>,
        pipeline: Pipeline,
    }

    /// The picture, brighter by two levels in every other frame: what never changes is not alive.
    fn flickering(picture: &Image, now: Moment) -> Image {
        let frame = now.since(Moment::default()).as_millis() / PACE.as_millis();
        let brighter = if frame.is_multiple_of(2) { 2 } else { 0 };
        let pixels = picture.pixels().iter().map(|value| value + brighter);
        Image::from_rgb(picture.width(), picture.height(), pixels.collect()).unwrap()
    }

    impl Rig {
        fn new(required: bool) -> Self {
            Self::with(required, &scripted::pack(), &ScriptedLoader::default())
        }

        fn with(required: bool, pack: &Pack, loader: &ScriptedLoader) -> Self {
            let clock = Arc::new(SimulatedClock::new(START));
            let store = Arc::new(MemoryStore::new());
            let pool = pool_of(pack, loader, PoolOptions { workers: 1, queue_max: 1 });
            let model = pool.info().embedding_model.clone();
            let (as_store, as_clock): (Arc<dyn Store>, Arc<dyn Clock>) =
                (Arc::<MemoryStore>::clone(&store), Arc::<SimulatedClock>::clone(&clock));
            let roster = Roster::open(as_store, as_clock, model, scripted::DIMENSION).unwrap();
            let roster = Arc::new(roster);
            let bus = Arc::new(Recorder::default());
            let frames: Arc<Mutex<VecDeque<Frame>>> = Arc::default();
            let camera_frames = Arc::clone(&frames);
            let metrics = Arc::new(Metrics::new("0"));
            let (journal, writer) = journal(
                Arc::<MemoryStore>::clone(&store),
                Arc::<Recorder>::clone(&bus),
                Arc::default(),
                Arc::clone(&metrics),
            );
            let pipeline = Pipeline::new(PipelineParts {
                camera: CameraConfig {
                    name: "front".into(),
                    source: CameraSource::Replay("unused".into()),
                    size: (480, 640),
                    fps: 10,
                    collection: CollectionName::new("staff").unwrap(),
                    min_similarity_score: Score::new(0.7).unwrap(),
                    false_accept_per_attempt: 0.001,
                    cooldown: Duration::from_secs(30),
                },
                liveness: LivenessConfig { required },
                frames: Box::new(move |_| camera_frames.lock().unwrap().pop_front()),
                pool,
                roster: Arc::clone(&roster),
                journal,
                clock: Arc::<SimulatedClock>::clone(&clock),
                boot: "boot-1".into(),
                door: None,
                limit: Arc::default(),
                pictures: None,
            });
            Self { clock, store, roster, bus, frames, writer, metrics, pipeline }
        }

        /// People 1 to 3 work here.
        fn staffed(self) -> Self {
            let staff = CollectionName::new("staff").unwrap();
            self.roster.create_collection(&staff).unwrap();
            let enrolments = (1..=3).map(staffer);
            self.roster.enrol(&staff, enrolments.collect()).unwrap();
            self
        }

        fn frame(&self, faces: &[Face]) -> Frame {
            Frame {
                format: PixelFormat::Mjpeg,
                width: 480,
                height: 640,
                stride: 0,
                bytes: encode_jpeg(&flickering(&picture_of(faces), self.clock.now()), 90),
                captured: self.clock.now(),
                sequence: 0,
            }
        }

        fn turn(&mut self, frame: Frame) -> Result<Turn, PipelineError> {
            self.frames.lock().unwrap().push_back(frame);
            self.clock.advance(LATENCY);
            let turn = self.pipeline.run_once();
            self.clock.advance(PACE.saturating_sub(LATENCY));
            turn
        }

        fn show(&mut self, times: usize, faces: &[Face]) {
            for _ in 0..times {
                let frame = self.frame(faces);
                self.turn(frame).unwrap();
            }
        }

        /// What is on the bus once the journal has written what waits.
        fn events(&self) -> Vec<Event> {
            self.writer.write_waiting();
            self.bus.0.lock().unwrap().clone()
        }

        fn types(&self) -> Vec<EventType> {
            self.events().iter().map(|event| event.event_type).collect()
        }
    }

    #[test]
    fn a_person_who_stands_there_is_one_complete_event_on_the_bus_and_in_the_log() {
        let mut rig = Rig::new(true).staffed();
        rig.show(20, &[Face::live(1)]);
        let events = rig.events();
        assert_eq!(events.len(), 1);
        assert_eq!(rig.store.events(0, 10).unwrap(), events, "the log and the bus say the same");
        let counted = rig.metrics.render();
        let series = "facelatch_events_total{type=\"match\"} 1";
        assert!(counted.contains(series), "{counted}");
        let event = &events[0];
        assert_eq!((event.v, event.event_type, event.seq), (1, EventType::Match, 1));
        // The fourth frame: the first shows no change yet, and three have to agree on liveness.
        assert_eq!(event.t_capture, Some(START.plus(PACE * 3)));
        assert_eq!(event.t_decision, START.plus(PACE * 3 + LATENCY));
        assert_eq!(event.latency_ms, Some(40));
        assert_eq!(event.exp, event.t_decision.plus(EVENT_LIFETIME));
        assert_eq!(event.id.parse::<ulid::Ulid>().unwrap().timestamp_ms(), 1_700_000_000_340);
        assert_eq!((event.boot.as_str(), event.camera.as_deref()), ("boot-1", Some("front")));
        assert_eq!(event.collection.as_deref(), Some("staff"));
        let person = event.person.clone().unwrap();
        assert_eq!((person.id.as_str(), person.name.as_str()), ("P1", "Person 1"));
        assert_eq!(person.metadata["team"], "7");
        assert!(event.similarity_score.unwrap() > 0.9);
        let liveness = event.liveness.clone().unwrap();
        assert_eq!((liveness.result, liveness.code), (LivenessResult::Live, None));
        assert!(liveness.score.unwrap() > 0.5);
        assert!((190..=210).contains(&event.quality.clone().unwrap().face_px));
        assert_eq!((event.reason, event.frames, event.track), (None, 4, Some(1)));
        assert_eq!((&event.door, &event.image, event.t_relay), (&None, &None, None));
    }

    #[test]
    fn a_picture_that_is_fed_again_and_again_is_a_suspected_attack() {
        let mut rig = Rig::new(true).staffed();
        let still = rig.frame(&[Face::live(9)]);
        for _ in 0..20 {
            let frame = Frame { captured: rig.clock.now(), ..still.clone() };
            rig.turn(frame).unwrap();
        }
        assert_eq!(rig.types(), [EventType::UnknownFace, EventType::SpoofSuspected]);
        let liveness = rig.events()[1].liveness.clone().unwrap();
        let motion = liveness.cues.iter().find(|cue| cue.name == Cue::Motion).unwrap();
        assert!(!motion.pass, "{motion:?}");
        assert_eq!(liveness.result, LivenessResult::Spoof);
        assert_eq!(liveness.code.as_deref(), Some("FACE_NOT_LIVE"));
    }

    #[test]
    fn a_stranger_is_one_event_without_a_person() {
        let mut rig = Rig::new(true).staffed();
        rig.show(20, &[Face::live(9)]);
        let events = rig.events();
        assert_eq!(rig.types(), [EventType::UnknownFace]);
        assert_eq!((&events[0].person, events[0].similarity_score), (&None, None));
        assert_eq!(events[0].reason, Some(Reason::Unknown));
    }

    #[test]
    fn two_people_side_by_side_are_both_found_live() {
        let mut rig = Rig::new(true).staffed();
        rig.show(5, &[Face::live(1).at(40, 200, 150), Face::live(2).at(280, 200, 150)]);
        let mut people: Vec<String> =
            rig.events().into_iter().map(|event| event.person.unwrap().id).collect();
        people.sort();
        assert_eq!(people, ["P1", "P2"]);
        assert_eq!(rig.types(), [EventType::Match; 2]);
    }

    #[test]
    fn an_attack_is_suspected_and_a_turned_face_denied() {
        let mut rig = Rig::new(true).staffed();
        rig.show(60, &[Face::attack(1)]);
        assert_eq!(rig.types(), [EventType::SpoofSuspected]);
        let liveness = rig.events()[0].liveness.clone().unwrap();
        assert_eq!(liveness.result, LivenessResult::Spoof);
        assert_eq!(liveness.code.as_deref(), Some("FACE_NOT_LIVE"));
        let mut rig = Rig::new(true).staffed();
        rig.show(60, &[Face { kind: Kind::Turned, ..Face::live(1) }]);
        assert_eq!(rig.types(), [EventType::Denied]);
        assert_eq!(rig.events()[0].reason, Some(Reason::OffPose));
        assert_eq!(rig.events()[0].person.clone().unwrap().id, "P1");
    }

    #[test]
    fn narrow_eyes_open_the_door_to_whom_they_belong() {
        let squinting = |person| Face { kind: Kind::Squinting, ..Face::live(person) };
        for (person, ratio, expected) in [
            (1, Some(0.17), EventType::Match),
            (1, Some(0.3), EventType::Denied),
            (1, None, EventType::Denied),
            (9, Some(0.17), EventType::UnknownFace),
        ] {
            let pack = scripted::pack_with_mesh();
            let mut rig = Rig::with(true, &pack, &ScriptedLoader::default()).staffed();
            let staff = CollectionName::new("staff").unwrap();
            let enrolment = Enrolment { eye_ratio: ratio.and_then(EyeRatio::new), ..staffer(1) };
            rig.roster.enrol(&staff, vec![enrolment]).unwrap();
            rig.show(60, &[squinting(person)]);
            assert_eq!(rig.types(), [expected], "{person} {ratio:?}");
            if expected == EventType::Denied {
                assert_eq!(rig.events()[0].reason, Some(Reason::EyesClosed));
            }
            let told = serde_json::to_string(&rig.events()).unwrap();
            assert!(!told.contains("ratio"), "{told}");
        }
    }

    #[test]
    fn a_pack_without_liveness_matches_nobody_unless_liveness_is_not_required() {
        let pack = Pack { pad: Vec::new(), ..scripted::pack() };
        let mut rig = Rig::with(true, &pack, &ScriptedLoader::default()).staffed();
        rig.show(60, &[Face::live(1)]);
        assert_eq!(rig.types(), [EventType::Denied]);
        let liveness = rig.events()[0].liveness.clone().unwrap();
        assert_eq!(liveness.result, LivenessResult::Unchecked);
        let problems = rig.pipeline.status().problems();
        assert!(problems[0].contains("liveness.required = false"), "{problems:?}");
        let mut rig = Rig::with(false, &pack, &ScriptedLoader::default()).staffed();
        rig.show(60, &[Face::live(1)]);
        assert_eq!(rig.types(), [EventType::Match]);
        assert_eq!(rig.pipeline.status().problems(), Vec::<String>::new());
    }

    #[test]
    fn a_log_that_fails_costs_the_number_and_not_the_event() {
        let mut rig = Rig::new(true).staffed();
        rig.store.fail_next(1);
        rig.show(4, &[Face::live(1)]);
        // Somebody else in the place of a settled face is noticed within half a second.
        rig.show(12, &[Face::live(2)]);
        let numbers: Vec<u64> = rig.events().iter().map(|event| event.seq).collect();
        assert_eq!(numbers, [0, 1]);
        let counters = rig.pipeline.parts.journal.status().counters();
        assert_eq!((counters.events, counters.unlogged, counters.lost), (2, 1, 0));
    }

    #[test]
    fn frames_are_judged_while_the_log_hangs_and_events_keep_their_order() {
        let mut rig = Rig::new(true).staffed();
        for person in 1..=3 {
            // Somebody else in the place of a settled face is noticed within half a second.
            rig.show(8, &[Face::live(person)]);
        }
        // Nothing has been written yet: the loop did not wait for it.
        assert_eq!(
            (rig.store.events(0, 10).unwrap().len(), rig.bus.0.lock().unwrap().len()),
            (0, 0)
        );
        assert_eq!(rig.pipeline.status().counters().frames, 24);
        let events = rig.events();
        let told: Vec<(u64, &str)> = events
            .iter()
            .map(|event| (event.seq, event.person.as_ref().unwrap().id.as_str()))
            .collect();
        assert_eq!(told, [(1, "P1"), (2, "P2"), (3, "P3")]);
        let decided = START.plus(PACE * 3 + LATENCY);
        assert_eq!(events[0].t_decision, decided, "events keep their times");
    }

    #[test]
    fn a_log_that_hangs_for_ever_loses_events_and_counts_them() {
        let mut rig = Rig::new(false).staffed();
        rig.show(1, &[Face::live(1)]);
        let event = rig.events().remove(0);
        let journal = rig.pipeline.parts.journal.clone();
        for _ in 0..EVENTS_WAITING_MAX + 2 {
            journal.put(event.clone());
        }
        assert_eq!(journal.status().counters().lost, 2);
        assert_eq!(rig.events().len(), 1 + EVENTS_WAITING_MAX);
    }

    #[test]
    fn the_journal_ends_with_the_last_loop_and_loses_nothing() {
        let mut rig = Rig::new(true).staffed();
        rig.show(4, &[Face::live(1)]);
        let Rig { pipeline, writer, bus, .. } = rig;
        let writing = std::thread::spawn(move || writer.run());
        drop(pipeline);
        writing.join().unwrap();
        assert_eq!(bus.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn damaged_and_stale_frames_cause_nothing() {
        let mut rig = Rig::new(false).staffed();
        let damaged = Frame { bytes: vec![0xff; 100], ..rig.frame(&[]) };
        let error = rig.turn(damaged).unwrap_err();
        assert!(error.to_string().contains("camera `front`"), "{error}");
        let old = rig.frame(&[Face::live(1)]);
        rig.clock.advance(Duration::from_secs(5));
        assert_eq!(rig.turn(old).unwrap(), Turn::Stale);
        let ahead = Frame {
            captured: rig.clock.now().plus(Duration::from_secs(3600)),
            ..rig.frame(&[Face::live(1)])
        };
        rig.turn(ahead).unwrap();
        assert_eq!(rig.events()[0].latency_ms, Some(0), "a time stamp ahead counts as now");
        assert_eq!(rig.pipeline.status().counters().frames_stale, 1);
    }

    /// A door that lets nobody wait.
    #[derive(Default)]
    struct Gate {
        decided: Mutex<Vec<(Event, String, Moment)>>,
        /// So many decisions are denied as stale.
        stale: usize,
        uncounted: AtomicUsize,
        seen: Mutex<Vec<Moment>>,
        /// Whether liveness is not asked for.
        is_lenient: bool,
    }

    impl DoorGate for Gate {
        fn decide(
            &self,
            facts: Facts<'_>,
            draft: Event,
            metadata: &BTreeMap<String, String>,
        ) -> Option<Reason> {
            assert!(facts.identity.accepted && facts.identity.false_accept <= 1e-3);
            assert!(self.is_lenient || matches!(facts.live, Liveness::Live(_)));
            assert!(facts.flaw.is_none());
            self.seen.lock().unwrap().push(facts.seen);
            assert!((190.0..=210.0).contains(&facts.face_px));
            assert!(facts.door.is_none() && facts.fault.is_none());
            let mut decided = self.decided.lock().unwrap();
            decided.push((draft, metadata["team"].clone(), facts.captured));
            (decided.len() <= self.stale).then_some(Reason::Stale)
        }

        fn face_px_min(&self) -> f32 {
            80.0
        }

        fn failed_attempts(&self, count: usize) {
            self.uncounted.fetch_add(count, Ordering::Relaxed);
        }

        fn failed(&self, event: Event) -> Event {
            Event { direction: Some("entry".into()), ..event }
        }
    }

    #[test]
    fn pictures_of_decisions_go_out_only_where_they_are_asked_for() {
        let mut rig = Rig::new(false).staffed();
        rig.show(5, &[Face::live(1)]);
        assert!(rig.bus.1.lock().unwrap().is_empty());
        rig.pipeline.parts.pictures = Some(Arc::<Recorder>::clone(&rig.bus));
        rig.show(5, &[Face::live(2)]);
        let pictures = rig.bus.1.lock().unwrap();
        let picture = crate::picture::decode(&pictures[0]).unwrap();
        assert!(pictures.len() == 1 && picture.width().max(picture.height()) <= 320);
    }

    /// A board that takes 350 ms for a frame never let anybody in.
    #[test]
    fn on_a_slow_board_one_more_look_tells_whether_somebody_still_stands_there() {
        for (later, is_there) in [(vec![Face::live(1)], true), (Vec::new(), false)] {
            let gate = Arc::new(Gate { is_lenient: true, ..Gate::default() });
            let mut rig = Rig::new(false).staffed();
            rig.pipeline.parts.door = Some(Arc::<Gate>::clone(&gate));
            let (first, begun) = (rig.frame(&[Face::live(1)]), rig.clock.now());
            rig.clock.advance(Duration::from_millis(340));
            let newest = rig.frame(&later);
            rig.frames.lock().unwrap().extend([first, newest]);
            rig.clock.advance(Duration::from_millis(10));
            rig.pipeline.run_once().unwrap();
            let expected = begun.plus(Duration::from_millis(if is_there { 340 } else { 0 }));
            assert_eq!(*gate.seen.lock().unwrap(), [expected]);
        }
    }

    #[test]
    fn who_was_a_moment_late_is_decided_again_while_standing_there() {
        let gate = Arc::new(Gate { stale: 1, ..Gate::default() });
        let mut rig = Rig::new(true).staffed();
        rig.pipeline.parts.door = Some(Arc::<Gate>::clone(&gate));
        rig.show(80, &[Face::live(1)]);
        assert_eq!(gate.decided.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_recognised_person_is_the_doors_to_decide_and_who_failed_goes_by_it() {
        let gate = Arc::new(Gate::default());
        let mut rig = Rig::new(true).staffed();
        rig.pipeline.parts.door = Some(Arc::<Gate>::clone(&gate));
        let start = rig.clock.now();
        rig.show(20, &[Face::live(1)]);
        assert_eq!(rig.events(), [], "the door answers for the event");
        let decided = gate.decided.lock().unwrap().pop().unwrap();
        assert_eq!(decided.0.person.unwrap().id, "P1");
        assert_eq!((decided.1.as_str(), decided.0.latency_ms), ("7", Some(40)));
        assert_eq!(START.plus(decided.2.since(start)), decided.0.t_capture.unwrap());
        assert!(gate.decided.lock().unwrap().is_empty());
        rig.show(30, &[]);
        rig.show(10, &[Face::live(9)]);
        rig.show(30, &[]);
        rig.show(10, &[Face::attack(2)]);
        assert_eq!(rig.types(), [EventType::UnknownFace, EventType::SpoofSuspected]);
        assert!(rig.events().iter().all(|event| event.direction.as_deref() == Some("entry")));
        assert!(gate.decided.lock().unwrap().is_empty());
    }

    #[test]
    fn an_empty_scene_rests_and_a_face_is_judged_in_the_frame_that_shows_it() {
        let mut rig = Rig::new(true).staffed();
        let mut turns = Vec::new();
        for _ in 0..21 {
            let frame = rig.frame(&[]);
            turns.push(rig.turn(frame).unwrap());
        }
        let rested = turns.iter().filter(|turn| **turn == Turn::Rested).count();
        assert_eq!(rested, 16, "the first frame and two a second are looked at: {turns:?}");
        let frame = rig.frame(&[Face::live(1)]);
        assert_eq!(rig.turn(frame).unwrap(), Turn::Judged { faces: 1, events: 0 });
        rig.show(3, &[Face::live(1)]);
        assert_eq!(rig.types(), [EventType::Match]);
        let counters = rig.pipeline.status().counters();
        assert_eq!((counters.frames, counters.frames_gated), (25, 16));
    }

    /// On a hot board a face is judged later and by the same rules: with fewer frames a second, all
    /// of them as fresh as ever.
    #[test]
    fn heat_spares_frames_and_lets_the_same_people_in() {
        let gate = Arc::new(Gate::default());
        let mut rig = Rig::new(true).staffed();
        rig.pipeline.parts.door = Some(Arc::<Gate>::clone(&gate));
        rig.pipeline.parts.limit.set(NonZeroU32::new(2));
        rig.show(20, &[]);
        let counters = rig.pipeline.status().counters();
        // Two of ten frames in a second, for two seconds.
        assert_eq!((counters.frames, counters.frames_limited), (20, 16));
        let begun = rig.clock.now();
        while gate.seen.lock().unwrap().is_empty() {
            rig.show(1, &[Face::live(1)]);
            let waited = rig.clock.now().since(begun);
            assert!(waited < Duration::from_secs(2), "nobody was let in within {waited:?}");
        }
        let decided = rig.clock.now().since(gate.seen.lock().unwrap()[0]);
        assert!(decided <= FACE_SEEN_MAX, "the frame of a decision was {decided:?} old");
    }

    #[test]
    fn who_leaves_before_the_decision_is_one_event_with_the_best_shot() {
        let mut rig = Rig::new(true).staffed();
        rig.show(15, &[Face { kind: Kind::Asleep, ..Face::live(1) }]);
        rig.show(30, &[]);
        let events = rig.events();
        assert_eq!(rig.types(), [EventType::Denied]);
        assert_eq!(events[0].reason, Some(Reason::FaceLeft));
        assert_eq!(events[0].person.clone().unwrap().id, "P1");
        assert!((190..=210).contains(&events[0].quality.clone().unwrap().face_px));
    }

    #[test]
    fn a_crowd_is_judged_by_its_largest_faces() {
        let mut rig = Rig::new(false).staffed();
        let crowd: Vec<Face> = (0..12)
            .map(|index| {
                Face::live(20 + index as u8).at(index % 4 * 115 + 10, index / 4 * 150 + 10, 80)
            })
            .collect();
        let frame = rig.frame(&crowd);
        let turn = rig.turn(frame).unwrap();
        assert_eq!(turn, Turn::Judged { faces: FACES_PER_FRAME_MAX, events: 0 });
    }

    #[test]
    fn a_failing_network_is_an_error_with_its_name() {
        let loader = ScriptedLoader::failing(EMBEDDING);
        let mut rig = Rig::with(true, &scripted::pack(), &loader).staffed();
        let frame = rig.frame(&[Face::live(1)]);
        let error = rig.turn(frame).unwrap_err();
        assert!(matches!(error, PipelineError::Recognition(_)), "{error}");
        let empty = rig.frame(&[]);
        assert_eq!(rig.turn(empty).unwrap(), Turn::Judged { faces: 0, events: 0 });
    }

    #[test]
    fn the_loop_outlives_a_missing_collection_and_ends_with_the_stop() {
        let mut rig = Rig::new(true);
        let frame = rig.frame(&[Face::live(1)]);
        let (stopper, stop) = shutdown::channel();
        let status = rig.pipeline.status();
        let roster = Arc::clone(&rig.roster);
        let mut script = 0;
        rig.pipeline.parts.frames = Box::new(move |_| {
            script += 1;
            match script {
                1 => {}
                2 => {
                    let problems = status.problems();
                    assert!(problems[0].contains("collection `staff`"), "{problems:?}");
                    roster.create_collection(&CollectionName::new("staff").unwrap()).unwrap();
                }
                3 => assert_eq!(status.problems(), Vec::<String>::new()),
                4 => return None,
                _ => stopper.stop(),
            }
            Some(frame.clone())
        });
        let status = rig.pipeline.status();
        rig.pipeline.run(&stop);
        let counters = status.counters();
        assert_eq!((counters.frames, counters.frames_failed), (4, 1));
    }

    #[test]
    fn a_snapshot_gathers_what_the_parts_know() {
        let mut rig = Rig::new(true).staffed();
        let status = rig.pipeline.status();
        let sources = SnapshotSources {
            cameras: vec![Arc::clone(&status)],
            journal: rig.pipeline.parts.journal.status(),
            door: Box::new(|| None),
            board: Box::new(|| None),
            roster: Arc::clone(&rig.roster),
            store: Arc::<MemoryStore>::clone(&rig.store),
            other_problems: Box::new(|| vec!["the door is painted blue".into()]),
            clock: Arc::<SimulatedClock>::clone(&rig.clock),
        };
        let before = sources.take();
        assert!(before.face.enabled && !before.face.occupancy);
        assert_eq!((before.seq, before.perf, before.last), (0, None, None));
        assert_eq!((before.gallery.collections, before.gallery.persons), (1, 3));
        assert_eq!(before.gallery.templates, 3);
        rig.show(4, &[Face::live(1)]);
        assert_eq!(rig.events().len(), 1);
        status.set_problem(Some("too dark".into()));
        let after = sources.take();
        assert!(after.face.occupancy);
        assert_eq!(after.seq, 1);
        assert_eq!(after.perf.unwrap().p95_ms, 40);
        assert_eq!(after.last.unwrap().event_type, EventType::Match);
        assert_eq!(after.problem.as_deref(), Some("the door is painted blue; too dark"));
        rig.clock.advance(Duration::from_secs(10));
        assert!(!sources.take().face.occupancy);
    }
}
