//! The one recognition path: detection, liveness and embedding for HTTP, camera and command line.
//!
//! [`Recognizer`] owns one set of networks and runs them one after the other; [`pool`] holds one
//! recognizer per worker thread behind a bounded queue. Nothing here opens files or sockets.

pub mod pool;

use thiserror::Error;

use crate::face::comparison::ScoreMap;
use crate::face::detection::Detection;
use crate::face::image::Image;
use crate::face::liveness::LivenessReport;
use crate::face::template::{Template, TemplateError};
use crate::gallery::person::EmbeddingModelId;
use crate::inference::{InferenceError, ModelLoader, Pack};

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
}

/// One set of networks. Not shared: every worker thread has its own.
pub struct Recognizer {
    _private: (),
}

impl Recognizer {
    /// Loads the networks of a pack.
    pub fn load(
        pack: &Pack,
        loader: &dyn ModelLoader,
        threads: usize,
    ) -> Result<Self, InferenceError> {
        let _ = (pack, loader, threads);
        Err(InferenceError::Runtime { reason: "not built yet".into() })
    }

    /// Every face in the picture, largest first.
    pub fn detect(&mut self, image: &Image) -> Result<Vec<Detection>, RecognitionError> {
        let _ = image;
        Ok(Vec::new())
    }

    /// The template of one face.
    pub fn embed(&mut self, image: &Image, face: &Detection) -> Result<Template, RecognitionError> {
        let _ = (image, face);
        Err(TemplateError::Zero.into())
    }

    /// Liveness of the main face of `faces` (all faces of the picture, as `detect` gave them).
    /// Never fails: what goes wrong is a reason.
    pub fn liveness(&mut self, image: &Image, faces: &[Detection]) -> LivenessReport {
        let _ = (image, faces);
        LivenessReport {
            failure: Some(crate::face::liveness::LivenessReason::UnknownError),
            pad_score: None,
        }
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
