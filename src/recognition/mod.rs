//! The one recognition path: detection, liveness and embedding for HTTP, camera and command line.
//!
//! [`Recognizer`] owns one set of networks and runs them one after the other; [`pool`] holds one
//! recognizer per worker thread behind a bounded queue. Nothing here opens files or sockets.

pub mod pool;
pub mod scripted;

use std::time::{Duration, Instant};

use thiserror::Error;

use crate::face::alignment::{Similarity, warp_into};
use crate::face::comparison::ScoreMap;
use crate::face::crop::attack_window;
use crate::face::detection::{Detection, main_face};
use crate::face::geometry::Point;
use crate::face::image::Image;
use crate::face::liveness::{
    Evidence, ImageRules, LivenessReason, LivenessReport, bona_fide_probability, image_rules,
};
use crate::face::planes::{PlaneMap, Planes, resize_into};
use crate::face::template::{Template, TemplateError};
use crate::face::yunet::{self, Letterbox, StrideMaps};
use crate::gallery::person::EmbeddingModelId;
use crate::inference::{
    ChannelOrder, EmbeddingSpec, InferenceError, Model, ModelLoader, Normalisation, Outputs, Pack,
    PadSpec, Tensor,
};

/// What the rest of the program may know of the models in use.
#[derive(Clone, Debug)]
pub struct RecognitionInfo {
    /// Name of the pack.
    pub pack: String,
    /// What a user has to know about it.
    pub notice: Option<String>,
    /// Identifies the embedding model.
    pub embedding_model: EmbeddingModelId,
    /// Components of a template.
    pub dimension: usize,
    /// From cosine to the caller's scale.
    pub score_map: ScoreMap,
    /// Whether the pack can check liveness.
    pub has_liveness: bool,
}

/// Why a picture could not be processed.
#[derive(Clone, Debug, Error)]
pub enum RecognitionError {
    /// A network failed.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// A network answered numbers that mean nothing.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The five landmarks of a face coincide or are not finite; no transform aligns them.
    #[error("the landmarks of the face cannot be aligned")]
    Landmarks,
}

/// Time that a recognizer has spent in each stage since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Letterbox, detector and decoding.
    pub detection: Duration,
    /// Alignment of faces.
    pub alignment: Duration,
    /// The embedding network.
    pub embedding: Duration,
    /// Crops and networks of the attack detectors.
    pub attack_detection: Duration,
}

/// Canvas of the first look in pixels. At this size one face was found in every one of 13,233
/// portraits, and large faces are lost on a larger canvas.
const NEAR_SIDE_PX: usize = 320;
/// Canvas of the second look.
const FAR_SIDE_PX: usize = 640;
/// A main face narrower than this on the near canvas is worth a second look. In the 150 example
/// photographs the second look found more faces only where the largest was at most 16 px wide
/// (people far away); wider ones gave the same faces at four times the cost.
const FAR_FACE_PX: f32 = 20.0;
/// Side of the attack detectors' input in pixels.
const ATTACK_SIDE_PX: usize = 80;

/// One set of networks. Not shared: every worker thread has its own.
pub struct Recognizer {
    detector: Box<dyn Model>,
    confidence_min: f32,
    embedder: Box<dyn Model>,
    aligner: Aligner,
    attack_detectors: Vec<AttackDetector>,
    pad_score_min: f32,
    canvas: Tensor,
    times: StageTimes,
}

/// How the embedding network wants its face.
struct Aligner {
    template: [Point; 5],
    map: PlaneMap,
    side: usize,
    output: String,
    dimension: usize,
}

struct AttackDetector {
    model: Box<dyn Model>,
    crop_scale: f32,
}

impl Recognizer {
    /// Loads the networks of a pack.
    pub fn load(
        pack: &Pack,
        loader: &dyn ModelLoader,
        threads: usize,
    ) -> Result<Self, InferenceError> {
        let attack_detector = |spec: &PadSpec| {
            let model = loader.load(&spec.file, threads)?;
            Ok(AttackDetector { model, crop_scale: spec.crop_scale })
        };
        Ok(Self {
            detector: loader.load(&pack.detector.file, threads)?,
            confidence_min: pack.detector.confidence_min,
            embedder: loader.load(&pack.embedding.file, threads)?,
            aligner: Aligner::new(&pack.embedding),
            attack_detectors: pack
                .pad
                .iter()
                .map(attack_detector)
                .collect::<Result<_, InferenceError>>()?,
            pad_score_min: pack.pad_score_min,
            canvas: Tensor { shape: Vec::new(), values: Vec::new() },
            times: StageTimes::default(),
        })
    }

    /// Every face in the picture, largest first: a first look for near faces and, where it finds
    /// none or only small ones in a larger picture, a second one for far faces.
    pub fn detect(&mut self, image: &Image) -> Result<Vec<Detection>, RecognitionError> {
        let near = self.detect_near(image)?;
        let longest = image.width().max(image.height()) as f32;
        let far_face = FAR_FACE_PX * longest / NEAR_SIDE_PX as f32;
        let near_suffices = near.first().is_some_and(|face| face.bounds.width >= far_face);
        if near_suffices || longest <= NEAR_SIDE_PX as f32 {
            return Ok(near);
        }
        let far = self.look(image, FAR_SIDE_PX)?;
        Ok(if far.is_empty() { near } else { far })
    }

    /// The faces that the first look finds, largest first: at a fifth of the cost what a camera
    /// loop needs, where most frames show nobody and people come closer by themselves.
    pub fn detect_near(&mut self, image: &Image) -> Result<Vec<Detection>, RecognitionError> {
        self.look(image, NEAR_SIDE_PX)
    }

    fn look(&mut self, image: &Image, side: usize) -> Result<Vec<Detection>, RecognitionError> {
        let start = Instant::now();
        let letterbox = Letterbox::fit(image.width(), image.height(), side);
        letterbox.draw(image, &mut self.canvas.values);
        self.canvas.shape = vec![1, 3, side, side];
        let outputs = self.detector.run(&self.canvas)?;
        let maps =
            [stride_maps(&outputs, 8)?, stride_maps(&outputs, 16)?, stride_maps(&outputs, 32)?];
        let mut faces = yunet::decode(letterbox, &maps, self.confidence_min)
            .map_err(|error| InferenceError::Shape { reason: error.to_string() })?;
        faces.sort_by(|a, b| b.bounds.area().total_cmp(&a.bounds.area()));
        self.times.detection += start.elapsed();
        Ok(faces)
    }

    /// The template of one face.
    pub fn embed(&mut self, image: &Image, face: &Detection) -> Result<Template, RecognitionError> {
        let start = Instant::now();
        let aligned = self.aligner.align(image, face)?;
        let aligned_at = Instant::now();
        let outputs = self.embedder.run(&aligned)?;
        self.times.alignment += aligned_at - start;
        self.times.embedding += aligned_at.elapsed();
        let embedding = outputs.get(&self.aligner.output)?;
        if embedding.values.len() != self.aligner.dimension {
            let (found, expected) = (embedding.values.len(), self.aligner.dimension);
            let reason = format!("an embedding of {found} values, expected {expected}");
            return Err(InferenceError::Shape { reason }.into());
        }
        Ok(Template::from_embedding(&embedding.values)?)
    }

    /// Liveness of the main face of `faces` (all faces of the picture, as `detect` gave them),
    /// under the rules for pictures that are posted. Never fails: what goes wrong is a reason.
    pub fn liveness(&mut self, image: &Image, faces: &[Detection]) -> LivenessReport {
        self.liveness_by(&ImageRules::STILL, image, faces)
    }

    /// As [`Recognizer::liveness`], under given rules.
    pub fn liveness_by(
        &mut self,
        rules: &ImageRules,
        image: &Image,
        faces: &[Detection],
    ) -> LivenessReport {
        let refused = |reason| LivenessReport { failure: Some(reason), pad_score: None };
        if self.attack_detectors.is_empty() {
            return refused(LivenessReason::LicenseError);
        }
        if let Some(reason) = image_rules((image.width(), image.height()), faces, rules) {
            return refused(reason);
        }
        let start = Instant::now();
        let pad_score = main_face(faces)
            .ok_or(LivenessReason::FaceNotFound)
            .and_then(|face| self.pad_score(image, face));
        self.times.attack_detection += start.elapsed();
        match pad_score {
            Ok(pad_score) => {
                let evidence = Evidence { eyes_closed: None, occluded: None, pad_score };
                LivenessReport {
                    failure: evidence.judge(self.pad_score_min),
                    pad_score: Some(pad_score),
                }
            }
            Err(reason) => refused(reason),
        }
    }

    /// Mean bona fide probability of the attack detectors.
    fn pad_score(&mut self, image: &Image, face: &Detection) -> Result<f32, LivenessReason> {
        let mut sum = 0.0;
        for detector in &mut self.attack_detectors {
            sum += detector.score(image, face)?;
        }
        Ok(sum / self.attack_detectors.len() as f32)
    }

    /// The time spent since this was last called.
    pub fn take_times(&mut self) -> StageTimes {
        std::mem::take(&mut self.times)
    }
}

fn stride_maps(outputs: &Outputs, stride: usize) -> Result<StrideMaps<'_>, InferenceError> {
    let values = |what: &str| Ok(outputs.get(&format!("{what}_{stride}"))?.values.as_slice());
    Ok(StrideMaps {
        class: values("cls")?,
        object: values("obj")?,
        bounds: values("bbox")?,
        points: values("kps")?,
    })
}

impl Aligner {
    fn new(spec: &EmbeddingSpec) -> Self {
        let Normalisation { order, mean, std } = spec.normalisation;
        Self {
            template: spec.template.map(|[x, y]| Point::new(x, y)),
            map: match order {
                ChannelOrder::Rgb => PlaneMap::rgb(mean, std),
                ChannelOrder::Bgr => PlaneMap::bgr(mean, std),
            },
            side: spec.side as usize,
            output: spec.output.clone(),
            dimension: spec.dimension,
        }
    }

    fn align(&self, image: &Image, face: &Detection) -> Result<Tensor, RecognitionError> {
        let transform = Similarity::between(&face.landmarks, &self.template)
            .ok_or(RecognitionError::Landmarks)?;
        let side = self.side;
        let mut values = vec![0.0; 3 * side * side];
        let mut planes = Planes { width: side, height: side, values: &mut values };
        warp_into(image, transform, &self.map, &mut planes);
        Ok(Tensor { shape: vec![1, 3, side, side], values })
    }
}

impl AttackDetector {
    fn score(&mut self, image: &Image, face: &Detection) -> Result<f32, LivenessReason> {
        let window = attack_window(image.width(), image.height(), face.bounds, self.crop_scale)
            .ok_or(LivenessReason::FaceNotFound)?;
        let side = ATTACK_SIDE_PX;
        let mut values = vec![0.0; 3 * side * side];
        let mut planes = Planes { width: side, height: side, values: &mut values };
        resize_into(image, window, (side, side), &PlaneMap::RAW_BGR, &mut planes);
        let input = Tensor { shape: vec![1, 3, side, side], values };
        let failed = |error: InferenceError| {
            tracing::error!(%error, "attack detection failed");
            LivenessReason::UnknownError
        };
        let outputs = self.model.run(&input).map_err(failed)?;
        let logits = outputs.get("logits").map_err(failed)?;
        bona_fide_probability(&logits.values).ok_or_else(|| {
            failed(InferenceError::Shape { reason: "three finite logits expected".into() })
        })
    }
}

/// Facts about a pack, before or without loading its networks.
pub fn info(pack: &Pack) -> RecognitionInfo {
    RecognitionInfo {
        pack: pack.name.clone(),
        notice: pack.notice.clone(),
        embedding_model: EmbeddingModelId(pack.embedding.file.sha256.chars().take(16).collect()),
        dimension: pack.embedding.dimension,
        score_map: pack.embedding.score_map.clone(),
        has_liveness: !pack.pad.is_empty(),
    }
}
