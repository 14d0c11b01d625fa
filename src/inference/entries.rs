//! The form of `models/manifest.toml` as it is written: one type per section, and what can be
//! checked about each entry alone. `manifest` joins entries to packs and reads the files.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::face::comparison::ScoreMap;
use crate::face::tail::Tail;
use crate::inference::{ChannelOrder, Normalisation};

/// Largest size that an entry may claim, in bytes: bounds what one load may allocate.
const MODEL_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One set of models.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackEntry {
    /// What it is for.
    pub summary: String,
    /// Licence of the files.
    pub licence: String,
    /// What the user of a running pack has to know.
    pub notice: Option<String>,
    /// Terms that have to be accepted before the pack is installed.
    pub must_accept: Option<String>,
    /// Whether faces that it recognises must not open a real door unless that is allowed.
    #[serde(default)]
    pub not_for_door: bool,
    /// Model that finds faces.
    pub detector: String,
    /// Models that tell people apart; the first is the default.
    pub embeddings: Vec<String>,
    /// Models of presentation attack detection, possibly none.
    pub pad: Vec<String>,
    /// Least mean bona fide probability that counts as live, 0 to 1.
    pub pad_score_min: f32,
    /// Model that tells closed eyes and covered faces; without it the pack cannot check liveness.
    pub face_state: Option<String>,
    /// Models that decide where eyes and pose are in doubt.
    pub mesh: Option<MeshModels>,
    /// Model that moves the detector's five points to where they belong.
    pub landmarks: Option<String>,
}

impl PackEntry {
    /// Whether the pack has what a liveness check needs: a network that finds attacks, and the one
    /// that tells closed eyes and covered faces.
    pub fn has_liveness(&self) -> bool {
        !self.pad.is_empty() && self.face_state.is_some()
    }

    /// The names of all models of the pack.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        let detector = std::iter::once(&self.detector);
        let mesh = self.mesh.iter().flat_map(|mesh| [&mesh.points, &mesh.blendshapes]);
        let names = detector.chain(&self.embeddings).chain(&self.pad);
        names.chain(&self.face_state).chain(mesh).chain(&self.landmarks).map(String::as_str)
    }
}

/// The two models of a face mesh, which make one second look.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshModels {
    /// Finds the points of a face.
    pub points: String,
    /// Reads expressions off them.
    pub blendshapes: String,
}

/// One model file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// Path below the models folder, with `/`; never leads out of it.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// Lower-case hex SHA-256.
    pub sha256: String,
    /// Licence of the file.
    pub licence: String,
    /// Where it comes from.
    pub upstream: Upstream,
    /// Addresses of exactly this file.
    #[serde(default)]
    pub url: Vec<String>,
    /// How it is made, where upstream offers only another format.
    pub made_by: Option<String>,
    /// What it is made of.
    pub source: Option<Source>,
    /// Files that are accepted in its place, numerically equal to it.
    #[serde(default)]
    pub alternate: Vec<AlternateEntry>,
    /// What goes in.
    pub input: InputEntry,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Present when the model can be a pack's detector.
    pub detector: Option<DetectorEntry>,
    /// Present when the model can be a pack's embedding.
    pub embedding: Option<EmbeddingEntry>,
    /// Present when the model can be part of a pack's presentation attack detection.
    pub pad: Option<PadEntry>,
    /// Present when the model can tell a pack closed eyes and covered faces.
    pub face_state: Option<FaceStateEntry>,
    /// Present when the model can move the five points of a pack's detector.
    pub landmarks: Option<LandmarksEntry>,
}

/// Origin of a model file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Address of the repository.
    pub repository: String,
    /// Commit, at least 8 hex digits; absent where it was not recorded.
    pub commit: Option<String>,
    /// Path in the repository.
    pub path: String,
}

/// The upstream file that a model file is converted from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// File name.
    pub file: String,
    /// Lower-case hex SHA-256.
    pub sha256: String,
    /// Address, where it is known to hold this file.
    pub url: Option<String>,
}

/// Another file of a model: other bytes, equal numbers. It shares everything but these fields with
/// the main file, its identity included.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlternateEntry {
    /// Size in bytes.
    pub size: u64,
    /// Lower-case hex SHA-256.
    pub sha256: String,
    /// What makes it.
    pub made_by: String,
}

/// The input tensor of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputEntry {
    /// Name of the tensor.
    pub name: String,
    /// Extent of each axis; 1 for the batch, a usual size where it is free.
    pub shape: Vec<usize>,
    order: Option<ChannelOrder>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
}

/// What a detector needs beyond its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorEntry {
    /// Least confidence of a detection, 0 to 1.
    pub confidence_min: f32,
}

/// What an embedding model needs beyond its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingEntry {
    /// Components of the embedding.
    pub dimension: usize,
    /// Side of the square input in pixels.
    pub side: u32,
    /// Where the five landmarks go, in pixels.
    pub template: [[f32; 2]; 5],
    /// From cosine to the caller's scale.
    pub score_map: ScoreMap,
    /// How rare a cosine is between different people.
    pub tail: Tail,
}

/// What a presentation attack detector needs beyond its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PadEntry {
    /// Crop size relative to the face box.
    pub crop_scale: f32,
}

/// What a face state network needs beyond its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaceStateEntry {
    /// Side of the square input in pixels.
    pub side: u32,
    /// Where the five landmarks go, in pixels.
    pub template: [[f32; 2]; 5],
    /// Least probability of each eye for "closed", 0 to 1.
    pub eyes_closed_min: f32,
    /// Least probability for "covered", 0 to 1.
    pub covered_min: f32,
}

/// What a landmark network needs beyond its file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandmarksEntry {
    /// Side of the square input in pixels.
    pub side: u32,
    /// Where the detector's five points go, in pixels; its eyes must lie apart.
    pub template: [[f32; 2]; 5],
}

/// The whole page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestText {
    /// Version of the form.
    pub version: u32,
    /// Packs by name.
    pub pack: BTreeMap<String, PackEntry>,
    /// Models by name.
    pub model: BTreeMap<String, ModelEntry>,
}

impl InputEntry {
    /// How pixels become this tensor; `None` when it does not hold pixels.
    pub fn normalisation(&self) -> Option<Normalisation> {
        Some(Normalisation { order: self.order?, mean: self.mean?, std: self.std? })
    }

    /// Side in pixels of an input that is one square picture in three planes.
    pub fn square_side(&self) -> Option<u32> {
        match *self.shape.as_slice() {
            [1, 3, height, width] if height == width => width.try_into().ok(),
            _ => None,
        }
    }
}

impl ModelEntry {
    /// The hashes that its file may have, the main one first.
    pub fn hashes(&self) -> impl Iterator<Item = &str> {
        let alternates = self.alternate.iter().map(|alternate| alternate.sha256.as_str());
        std::iter::once(self.sha256.as_str()).chain(alternates)
    }

    /// The sizes in bytes that its file may have, the main one first.
    pub fn sizes(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.size).chain(self.alternate.iter().map(|alternate| alternate.size))
    }

    /// Why the entry cannot be meant, if so.
    pub fn check(&self) -> Result<(), String> {
        let is_plain = |part: Component| matches!(part, Component::Normal(_));
        if self.file.is_empty() || !Path::new(&self.file).components().all(is_plain) {
            return Err(format!("file `{}` is not a path below the models folder", self.file));
        }
        let is_hash = |hash: &str| {
            hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let source = self.source.iter().map(|source| source.sha256.as_str());
        if let Some(hash) = self.hashes().chain(source).find(|hash| !is_hash(hash)) {
            return Err(format!("`{hash}` is not a SHA-256 in lower-case hex"));
        }
        if let Some(size) = self.sizes().find(|size| !(1..=MODEL_BYTES_MAX).contains(size)) {
            return Err(format!("size {size} is not within 1..={MODEL_BYTES_MAX}"));
        }
        if self.outputs.is_empty() {
            return Err("names no output".into());
        }
        let input = &self.input;
        if input.shape.is_empty() || input.shape.contains(&0) {
            return Err(format!("input shape {:?} is empty", input.shape));
        }
        let values = input.mean.iter().chain(&input.std).flatten();
        if values.clone().any(|value| !value.is_finite())
            || input.std.is_some_and(|s| s.contains(&0.0))
        {
            return Err("mean and std must be finite, std never 0".into());
        }
        self.check_parts()
    }

    /// Why what the model can be in a pack cannot be meant, if so.
    fn check_parts(&self) -> Result<(), String> {
        let is_width = |side: u32| self.input.shape.last() == Some(&(side as usize));
        let is_share = |limit: f32| (0.0..=1.0).contains(&limit);
        if self.detector.as_ref().is_some_and(|detector| !is_share(detector.confidence_min)) {
            return Err("confidence_min is not within 0..=1".into());
        }
        if let Some(embedding) = &self.embedding
            && (embedding.dimension == 0 || !is_width(embedding.side))
        {
            return Err("dimension is 0, or side is not the width of the input".into());
        }
        if let Some(state) = &self.face_state
            && !(is_width(state.side)
                && is_share(state.eyes_closed_min)
                && is_share(state.covered_min))
        {
            return Err("side is not the width of the input, or a limit not within 0..=1".into());
        }
        if let Some(landmarks) = &self.landmarks {
            let [left, right, ..] = landmarks.template;
            let apart = (right[0] - left[0]).hypot(right[1] - left[1]);
            if !(is_width(landmarks.side) && apart > 0.0 && apart.is_finite()) {
                let reason = "side is not the width of the input, or the eyes of the template are \
                              not apart";
                return Err(reason.into());
            }
        }
        if let Some(pad) = &self.pad
            && !(pad.crop_scale >= 1.0 && pad.crop_scale < 10.0)
        {
            return Err("crop_scale is not within 1..10".into());
        }
        if self.pad.is_some() && self.input.square_side().is_none() {
            return Err("the input of an attack detector is not [1, 3, side, side]".into());
        }
        Ok(())
    }
}
