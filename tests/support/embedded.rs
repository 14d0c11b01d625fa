//! The embedded models and drawn people, for twins of tests that need networks and photographs from
//! outside the repository. ONNX Runtime is all that they need besides.
#![allow(dead_code, reason = "each test that takes this module uses another part of it")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use facelatch::face::detection::Detection;
use facelatch::face::image::Image;
use facelatch::inference::InferenceError;
use facelatch::inference::Model;
use facelatch::inference::ModelFile;
use facelatch::inference::ModelLoader;
use facelatch::inference::Outputs;
use facelatch::inference::Pack;
use facelatch::inference::PadSpec;
use facelatch::inference::Tensor;
use facelatch::inference::manifest::Manifest;
use facelatch::inference::onnx::OnnxLoader;
use facelatch::picture;
use facelatch::recognition::Recognizer;

use crate::standard::{needed, tell};

/// Name of the stand-in for an attack detector.
const STAND_IN: &str = "stand-in";
/// Side of what the stand-in looks at, and how far beyond the face it looks.
pub const STAND_IN_SIDE: u32 = 80;
const STAND_IN_SCALE: f32 = 2.7;
/// Logits that mean bona fide, of print, bona fide and screen.
pub const BONA_FIDE: [f32; 3] = [0.0, 9.0, 0.0];

/// The installed ONNX Runtime; `None` when it is not there, as `needed` says.
pub fn loader(test: &str) -> Option<OnnxLoader> {
    let library = format!("vendor/onnxruntime/{}/libonnxruntime.so", std::env::consts::ARCH);
    Some(OnnxLoader::new(Some(&needed(test, &library)?)).unwrap())
}

/// The runtime for a test on drawn people, or a line on what is missing.
pub fn runtime(test: &str) -> Option<OnnxLoader> {
    let loader = loader(test)?;
    tell(&format!("PICTURES drawn {test}"));
    tell(&format!("PACK builtin {test}"));
    Some(loader)
}

/// The embedded models.
pub fn builtin() -> Pack {
    Manifest::embedded().pack("builtin", None, Path::new("")).unwrap()
}

/// A committed picture of drawn people.
pub fn drawn(name: &str) -> Image {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/people");
    picture::decode(&fs::read(folder.join(format!("{name}.jpg"))).unwrap()).unwrap()
}

/// The one face in a picture.
pub fn only_face(recognizer: &mut Recognizer, image: &Image) -> Detection {
    let faces = recognizer.detect(image).unwrap();
    assert_eq!(faces.len(), 1, "{image:?}");
    faces[0]
}

/// The embedded models with the whole liveness check: the face-state network, and a stand-in for
/// attack detectors, which were never trained on drawings and whose opinion of them means nothing.
pub fn checking() -> Pack {
    let mut pack = builtin();
    let file = ModelFile { name: STAND_IN.into(), ..pack.detector.file.clone() };
    let normalisation = pack.embedding.normalisation;
    let crop_scale = STAND_IN_SCALE;
    pack.pad = vec![PadSpec { file, normalisation, side: STAND_IN_SIDE, crop_scale }];
    pack.pad_score_min = 0.5;
    pack
}

/// Loads the real networks, and for the stand-in one that always says `says`.
pub struct WithStandIn {
    pub real: OnnxLoader,
    pub says: [f32; 3],
    /// What the stand-in was shown.
    pub seen: Arc<Mutex<Vec<Tensor>>>,
}

impl WithStandIn {
    pub fn new(real: OnnxLoader, says: [f32; 3]) -> Self {
        Self { real, says, seen: Arc::default() }
    }

    pub fn recognizer(&self) -> Recognizer {
        Recognizer::load(&checking(), self, 1).unwrap()
    }
}

/// An attack detector that says one thing and remembers what it was shown.
struct StandIn {
    says: [f32; 3],
    seen: Arc<Mutex<Vec<Tensor>>>,
}

impl Model for StandIn {
    fn run(&mut self, input: &Tensor) -> Result<Outputs, InferenceError> {
        self.seen.lock().unwrap().push(input.clone());
        let values = self.says.to_vec();
        Ok(Outputs(vec![("logits".into(), Tensor { shape: vec![1, 3], values })]))
    }
}

impl ModelLoader for WithStandIn {
    fn load(&self, file: &ModelFile, threads: usize) -> Result<Box<dyn Model>, InferenceError> {
        if file.name == STAND_IN {
            return Ok(Box::new(StandIn { says: self.says, seen: Arc::clone(&self.seen) }));
        }
        self.real.load(file, threads)
    }
}
