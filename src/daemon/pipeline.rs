//! The frame loop of one camera: frame, faces, liveness, templates, search, attempt, event.
//!
//! One thread per camera takes the newest frame, has it analysed on the recognition pool (the
//! camera's lane) and decides here what to report. Frames that come meanwhile are lost on purpose:
//! the newest one wins. An event is appended to the log first, which gives it its number, and then
//! offered to the bus. A log that fails costs the number, never the event: it goes out with `seq`
//! 0, is counted, and says so once.
//!
//! [`Pipeline::run`] never fails; [`Pipeline::run_once`] is one frame and uses `?`. Pictures and
//! templates end with the frame: nothing of a stranger is kept but a rectangle.

pub mod analysis;
pub mod notice;
pub mod status;

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tracing::{debug, info, warn};

use crate::access::attempt::AttemptOptions;
use crate::access::attempt::Attempts;
use crate::access::attempt::Evidence;
use crate::access::attempt::LivenessPolicy;
use crate::access::attempt::Observation;
use crate::access::attempt::Outcome;
use crate::bus::Bus;
use crate::camera::Frame;
use crate::camera::pixels::PixelError;
use crate::clock::Clock;
use crate::clock::Moment;
use crate::config::CameraConfig;
use crate::config::LivenessConfig;
use crate::daemon::pipeline::analysis::LivenessCheck;
use crate::daemon::pipeline::analysis::SeenFace;
use crate::daemon::pipeline::analysis::analyse;
use crate::daemon::pipeline::notice::Notice;
use crate::daemon::pipeline::notice::Recognised;
use crate::daemon::pipeline::notice::Writer;
use crate::daemon::pipeline::status::PipelineStatus;
use crate::gallery::Gallery;
use crate::gallery::ranking::SearchOptions;
use crate::recognition::RecognitionError;
use crate::recognition::pool::Lane;
use crate::recognition::pool::PoolError;
use crate::recognition::pool::RecognizerPool;
use crate::roster::Roster;
use crate::shutdown::StopSignal;
use crate::store::Store;

/// Longest wait for a frame before the stop signal is looked at.
const FRAME_WAIT: Duration = Duration::from_millis(500);
/// Pause when there was no frame: a camera that has ended answers at once.
const NO_FRAME_PAUSE: Duration = Duration::from_millis(50);
/// A frame older than this shows the past and is not judged.
const FRAME_AGE_MAX: Duration = Duration::from_secs(2);

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
    /// The event log.
    pub store: Arc<dyn Store>,
    /// Where events go.
    pub bus: Arc<dyn Bus>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifies this run of the daemon in events.
    pub boot: Arc<str>,
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
    check: LivenessCheck,
    search: SearchOptions,
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
        let threshold = info.score_map.cosine(parts.camera.min_similarity_score);
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
        let options = AttemptOptions { cooldown: parts.camera.cooldown, liveness: policy };
        Self {
            attempts: Attempts::new(options),
            check,
            search: SearchOptions::for_score(threshold, 1),
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
                Ok(Turn::Stale) => {}
                Ok(Turn::Judged { .. }) => {
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
        let Some(frame) = (self.parts.frames)(FRAME_WAIT) else { return Ok(Turn::NoFrame) };
        self.status.count_frame();
        let captured = frame.captured.min(self.parts.clock.now());
        if self.parts.clock.now().since(captured) > FRAME_AGE_MAX {
            self.status.count_stale();
            return Ok(Turn::Stale);
        }
        let gallery = self.gallery()?;
        let faces = self.analyse(&frame)?;
        drop(frame);
        let people = self.search(&gallery, &faces);
        let outcomes = self.attempts.observe(captured, &observations(&faces, &people));
        let (now, events) = (self.parts.clock.now(), outcomes.len());
        if !faces.is_empty() {
            self.status.see_faces(faces.len(), now, now.since(captured));
        }
        for outcome in outcomes {
            self.report(outcome, captured, &faces, &people);
        }
        Ok(Turn::Judged { faces: faces.len(), events })
    }

    fn gallery(&self) -> Result<Arc<Gallery>, PipelineError> {
        let collection = &self.parts.camera.collection;
        self.parts.roster.gallery(collection).ok_or_else(|| PipelineError::NoCollection {
            camera: self.parts.camera.name.clone(),
            collection: collection.to_string(),
        })
    }

    fn analyse(&self, frame: &Frame) -> Result<Vec<SeenFace>, PipelineError> {
        let image = frame.to_image().map_err(|error| PipelineError::Pixels {
            camera: self.parts.camera.name.clone(),
            error,
        })?;
        let check = self.check;
        let job = move |recognizer: &mut _| analyse(recognizer, &image, check);
        Ok(self.parts.pool.run_blocking(Lane::Camera, job)??)
    }

    /// The best candidate over the threshold for each face.
    fn search(&self, gallery: &Gallery, faces: &[SeenFace]) -> Vec<Option<Recognised>> {
        let least = self.parts.camera.min_similarity_score;
        let map = &self.parts.pool.info().score_map;
        let best = |face: &SeenFace| {
            let candidates = gallery.search(face.template.as_ref()?, self.search);
            let best = candidates.into_iter().next()?;
            let score = map.score(best.cosine);
            (score >= least).then_some(Recognised { member: best.person, score })
        };
        faces.iter().map(best).collect()
    }

    fn report(
        &self,
        outcome: Outcome,
        captured: Moment,
        faces: &[SeenFace],
        people: &[Option<Recognised>],
    ) {
        let PipelineParts { clock, store, bus, .. } = &self.parts;
        let (Some(face), Some(person)) =
            (faces.get(outcome.observation), people.get(outcome.observation))
        else {
            return;
        };
        let age = clock.now().since(captured);
        let notice = Notice { outcome, face, person: person.as_ref(), age, now: clock.utc() };
        let mut event = self.writer.event(&notice);
        match store.append_event(&event) {
            Ok(seq) => {
                event.seq = seq;
                if self.status.store_works(true) {
                    info!("the event log works again");
                }
            }
            Err(error) => {
                if self.status.store_works(false) {
                    warn!(%error, "events go out without a number: the event log fails");
                }
            }
        }
        let (id, camera) = (&event.id, &event.camera);
        info!(id, seq = event.seq, camera, event_type = ?event.event_type, reason = ?event.reason, "event");
        if let Some(person) = &event.person {
            debug!(id, person = person.id, "event is about");
        }
        self.status.remember(&event);
        bus.offer(event);
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

fn observations(faces: &[SeenFace], people: &[Option<Recognised>]) -> Vec<Observation> {
    faces
        .iter()
        .zip(people)
        .map(|(face, person)| Observation {
            bounds: face.detection.bounds,
            person: person.as_ref().map(|person| person.member.id.clone()),
            evidence: face.liveness.as_ref().map_or(Evidence::Unchecked, Evidence::from),
        })
        .collect()
}
