//! The port to neural networks: tensors in, tensors out, by name.
//!
//! `onnx` implements it with ONNX Runtime, tests with scripted models. What the tensors mean is
//! decided in `face` (decoding) and `recognition` (which model, when). `manifest` says which files
//! make a pack and checks them, `entries` is the form of its page; `install` brings the files, from
//! folders or by `download`.

pub mod download;
pub mod entries;
pub mod install;
pub mod manifest;
#[cfg(feature = "onnx")]
pub mod onnx;

use std::sync::Arc;

use thiserror::Error;

use crate::face::comparison::ScoreMap;
use crate::face::tail::Tail;

/// A dense float tensor, row-major. Invariant: `values.len()` is the product of `shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// The outputs of one run.
#[derive(Clone, Debug, Default)]
pub struct Outputs(pub Vec<(String, Tensor)>);

impl Outputs {
    /// The output called `name`.
    pub fn get(&self, name: &str) -> Result<&Tensor, InferenceError> {
        let found = self.0.iter().find(|(own, _)| own == name);
        found
            .map(|(_, tensor)| tensor)
            .ok_or_else(|| InferenceError::MissingOutput { name: name.to_string() })
    }
}

/// Why a model could not be loaded or run.
#[derive(Clone, Debug, Error)]
pub enum InferenceError {
    /// The ONNX Runtime library is absent or unusable.
    #[error(
        "ONNX Runtime: {reason}. Run `./dev setup`, or set `models.runtime` to libonnxruntime.so"
    )]
    Runtime {
        /// What the loader said.
        reason: String,
    },
    /// The file is not a model that the runtime accepts.
    #[error("model `{model}` cannot be loaded: {reason}")]
    Load {
        /// Name in the manifest.
        model: String,
        /// What the runtime said.
        reason: String,
    },
    /// The model failed on an input.
    #[error("model `{model}` failed: {reason}")]
    Run {
        /// Name in the manifest.
        model: String,
        /// What the runtime said.
        reason: String,
    },
    /// The model has no such output: the file and the manifest disagree.
    #[error("the model has no output `{name}`")]
    MissingOutput {
        /// The name that was asked for.
        name: String,
    },
    /// The output has another shape than the decoder expects.
    #[error("unexpected output: {reason}")]
    Shape {
        /// Expected and found.
        reason: String,
    },
}

/// One loaded network. Not shared between threads: every worker has its own.
pub trait Model: Send {
    /// Runs the network on one input, named as in the manifest.
    fn run(&mut self, input: &Tensor) -> Result<Outputs, InferenceError>;
}

/// Makes networks of model files that have been checked.
pub trait ModelLoader: Send + Sync {
    /// Loads one network; `threads` run one inference.
    fn load(&self, file: &ModelFile, threads: usize) -> Result<Box<dyn Model>, InferenceError>;
}

/// The verified bytes of one model file and where its input goes.
#[derive(Clone)]
pub struct ModelFile {
    /// Name in the manifest.
    pub name: String,
    /// Identity of the network: lower-case hex SHA-256 of the main file in the manifest. Also when
    /// `bytes` are an alternate, which computes the same, so that templates outlive the exchange.
    pub sha256: String,
    /// The ONNX file, as checked: what is loaded is what was hashed, the main file or an alternate.
    pub bytes: Arc<[u8]>,
    /// Name of the input tensor.
    pub input: String,
}

/// Order of the colour planes that a model wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// How 8-bit pixels become a model's input: `(value - mean) / std` per plane, in `order`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Plane order of the tensor; `mean` and `std` follow it.
    pub order: ChannelOrder,
    /// Subtracted, on the 0..255 scale.
    pub mean: [f32; 3],
    /// Divides, on the 0..255 scale; never 0.
    pub std: [f32; 3],
}

/// The face detector of a pack: outputs and decoding are `YuNet`'s.
#[derive(Clone)]
pub struct DetectorSpec {
    /// The network.
    pub file: ModelFile,
    /// Least confidence of a detection, 0 to 1.
    pub confidence_min: f32,
}

/// The embedding model of a pack.
#[derive(Clone)]
pub struct EmbeddingSpec {
    /// The network.
    pub file: ModelFile,
    /// Pixels to tensor.
    pub normalisation: Normalisation,
    /// Side of the square input in pixels (112 or 128).
    pub side: u32,
    /// Where the five landmarks go in the aligned face, in pixels.
    pub template: [[f32; 2]; 5],
    /// Name of the output tensor.
    pub output: String,
    /// Components of the embedding.
    pub dimension: usize,
    /// From cosine to the caller's scale.
    pub score_map: ScoreMap,
    /// How rare a cosine is between different people.
    pub tail: Arc<Tail>,
}

/// One network of the presentation attack detection ensemble.
#[derive(Clone)]
pub struct PadSpec {
    /// The network.
    pub file: ModelFile,
    /// Pixels to tensor.
    pub normalisation: Normalisation,
    /// Side of the square input in pixels.
    pub side: u32,
    /// Crop size relative to the face box (2.7 or 4.0).
    pub crop_scale: f32,
}

/// The network that tells closed eyes, covered faces and where a face looks.
#[derive(Clone)]
pub struct FaceStateSpec {
    /// The network; its output `state` is read by `face::state`.
    pub file: ModelFile,
    /// Pixels to tensor.
    pub normalisation: Normalisation,
    /// Side of the square input in pixels.
    pub side: u32,
    /// Where the five landmarks go in the aligned face, in pixels.
    pub template: [[f32; 2]; 5],
    /// Both eyes count as closed when each is so with at least this probability.
    pub eyes_closed_min: f32,
    /// A face counts as covered at and above this probability.
    pub covered_min: f32,
}

/// The network that moves the detector's five points to where they belong.
#[derive(Clone)]
pub struct LandmarksSpec {
    /// The network; its output `offsets` is read by `face::landmarks`.
    pub file: ModelFile,
    /// Pixels to tensor.
    pub normalisation: Normalisation,
    /// Side of the square input in pixels.
    pub side: u32,
    /// Where the detector's five points go in the aligned face, in pixels.
    pub template: [[f32; 2]; 5],
}

/// The face mesh, a second look at eyes and pose.
#[derive(Clone)]
pub struct MeshSpec {
    /// 478 points of a face.
    pub file: ModelFile,
    /// From some of these points to expressions, blinking among them.
    pub blendshapes: ModelFile,
}

/// A complete set of models, checked against the manifest.
#[derive(Clone)]
pub struct Pack {
    /// `standard`, `noncommercial`, `builtin`.
    pub name: String,
    /// What a user has to know about the pack, e.g. that `builtin` is not for a door.
    pub notice: Option<String>,
    /// Whether faces that it recognises may open a real door without that being allowed.
    pub is_for_door: bool,
    /// Finds faces.
    pub detector: DetectorSpec,
    /// Tells people apart.
    pub embedding: EmbeddingSpec,
    /// Tells people from pictures of people; empty when the pack holds no liveness model.
    pub pad: Vec<PadSpec>,
    /// Least mean bona fide probability that counts as live, 0 to 1.
    pub pad_score_min: f32,
    /// Tells closed eyes and covered faces; without it the pack cannot check liveness.
    pub face_state: Option<FaceStateSpec>,
    /// Decides where the cheaper estimates of eyes and pose are in doubt.
    pub mesh: Option<MeshSpec>,
    /// Moves the detector's five points; without it they are taken as they come.
    pub landmarks: Option<LandmarksSpec>,
}
