//! Test support: networks that follow a script instead of weights, so that everything above the
//! inference port runs without model files, in unit tests, in integration tests and with
//! `--no-default-features`.
//!
//! A test paints faces into a picture: a [`Face`] is a rectangle in a solid colour on a grey
//! ground, and the colour says who it is. The scripted networks find the rectangles, place
//! landmarks in them, and answer in the tensors of the real ones, so letterbox, decoding,
//! alignment and crops are the real code. Colours survive JPEG of quality 80 and above. Boxes
//! come back within two pixels of what was painted (two picture pixels per canvas pixel at most,
//! in pictures up to 640 px), so tests of limits keep that far away from them.
//!
//! Each of the 256 people has a template of its own, orthogonal to every other (a row of the
//! Walsh-Hadamard matrix): equal faces have a cosine of 1, different ones of 0.

mod answers;

use std::sync::Arc;

use crate::face::comparison::ScoreMap;
use crate::face::image::Image;
use crate::face::tail::Tail;
use crate::face::tail::TailEntry;
use crate::inference::{
    ChannelOrder, DetectorSpec, EmbeddingSpec, FaceStateSpec, InferenceError, LandmarksSpec,
    MeshSpec, Model, ModelFile, ModelLoader, Normalisation, Outputs, Pack, PadSpec, Tensor,
};
use crate::recognition::Recognizer;
use crate::recognition::info;
use crate::recognition::pool::{PoolOptions, RecognizerPool};

/// Components of a scripted template.
pub const DIMENSION: usize = 256;
/// The manifest name of the scripted detector.
pub const DETECTOR: &str = "scripted-detector";
/// The manifest name of the scripted embedding network.
pub const EMBEDDING: &str = "scripted-embedding";
/// The manifest name of the scripted face state network.
pub const FACE_STATE: &str = "scripted-face-state";
/// The manifest name of the scripted attack detector.
pub const ATTACK_DETECTOR: &str = "scripted-attack-detector";
/// The manifest name of the scripted face mesh.
pub const MESH: &str = "scripted-mesh";
/// The manifest name of the scripted network of expressions.
pub const BLENDSHAPES: &str = "scripted-blendshapes";
/// The manifest name of the scripted landmark network.
pub const LANDMARK_NETWORK: &str = "scripted-landmarks";

/// People from this number on have narrow eyes.
pub const NARROW_EYED_MIN: u8 = 240;
/// Eye aspect ratio of open eyes, as the scripted mesh sees them.
pub const EYE_RATIO_OPEN: f32 = 0.3;
/// Eye aspect ratio of the open eyes of narrow-eyed people.
pub const EYE_RATIO_NARROW: f32 = 0.17;
/// Eye aspect ratio of eyes against the sun.
pub const EYE_RATIO_SQUINTING: f32 = 0.15;
/// Eye aspect ratio of closed eyes.
pub const EYE_RATIO_ASLEEP: f32 = 0.05;
/// How far the scripted landmark network moves every point, in distances between the eyes.
pub const REFINED_BY: [f32; 2] = [0.1, -0.05];
/// How far every eye is blinking: enough to be closed, so that the ratios decide.
const BLINK: f32 = 0.6;

/// Every channel of a picture where no face is.
const GROUND: u8 = 96;
/// Red at and above which a pixel belongs to a face: between ground and faces, so that edges
/// blurred by resizing come out in the middle.
const FACE_RED_MIN: f32 = 150.0;
/// How far a colour may be from its code and still mean it.
const COLOUR_TOLERANCE: f32 = 5.0;
/// Smallest face that is found, in canvas pixels.
const FACE_CANVAS_PX_MIN: usize = 6;
/// Landmarks as shares of the face box, in the proportions of the aligned face.
const LANDMARKS: [[f32; 2]; 5] = [[0.27, 0.4], [0.72, 0.4], [0.5, 0.6], [0.31, 0.8], [0.69, 0.8]];
/// Where the nose is when the face is turned far to the side.
const NOSE_TURNED: [f32; 2] = [0.8, 0.6];
/// The aligned face's landmarks on 112x112 pixels, as `ArcFace` networks expect them.
const ALIGNED: [[f32; 2]; 5] = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
];
const ALIGNED_SIDE: usize = 112;
const NORMALISATION: Normalisation =
    Normalisation { order: ChannelOrder::Rgb, mean: [127.5; 3], std: [127.5; 3] };
const RAW: Normalisation =
    Normalisation { order: ChannelOrder::Bgr, mean: [0.0; 3], std: [1.0; 3] };
/// Side of the attack detector's input.
const ATTACK_SIDE: u32 = 80;
/// Side of the landmark network's input.
const REFINED_SIDE: u32 = 64;

/// What the attack detector and the image rules shall think of a painted face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A live person who looks at the camera.
    Live,
    /// A print or a screen.
    Attack,
    /// A live person who looks far to the side.
    Turned,
    /// A live person with both eyes closed.
    Asleep,
    /// A live person whose narrowed eyes the face state network takes for closed.
    Squinting,
    /// A live person behind a mask.
    Masked,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Live, Kind::Attack, Kind::Turned, Kind::Asleep, Kind::Squinting, Kind::Masked];

    const fn red(self) -> u8 {
        match self {
            Kind::Live => 232,
            Kind::Attack => 208,
            Kind::Turned => 184,
            Kind::Asleep => 246,
            Kind::Squinting => 196,
            Kind::Masked => 166,
        }
    }

    fn of_red(red: f32) -> Option<Self> {
        let near = |kind: &Kind| (f32::from(kind.red()) - red).abs() <= COLOUR_TOLERANCE;
        Self::ALL.into_iter().find(near)
    }
}

/// A face to paint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Face {
    /// Who it is.
    pub person: u8,
    /// What kind of face it is.
    pub kind: Kind,
    /// Left edge in pixels; may be negative.
    pub x: i32,
    /// Top edge in pixels; may be negative.
    pub y: i32,
    /// Width and height in pixels.
    pub side: u32,
}

impl Face {
    /// A live face that passes the image rules: 200 px wide at (140, 140), for a picture of
    /// [`picture_of`].
    pub const fn live(person: u8) -> Self {
        Self { person, kind: Kind::Live, x: 140, y: 140, side: 200 }
    }

    /// As [`Face::live`], but an attack.
    pub const fn attack(person: u8) -> Self {
        Self { kind: Kind::Attack, ..Self::live(person) }
    }

    /// The same face at another place and size. Leave a gap between faces: touching ones are one.
    #[must_use]
    pub const fn at(self, x: i32, y: i32, side: u32) -> Self {
        Self { x, y, side, ..self }
    }

    fn colour(self) -> [u8; 3] {
        [self.kind.red(), 8 + (self.person % 16) * 16, 8 + (self.person / 16) * 16]
    }

    fn covers(self, x: u32, y: u32) -> bool {
        let inside = |at: u32, start: i32| {
            let offset = i64::from(at) - i64::from(start);
            (0..i64::from(self.side)).contains(&offset)
        };
        inside(x, self.x) && inside(y, self.y)
    }
}

/// A picture of 480 by 640 pixels with these faces, later ones in front.
pub fn picture_of(faces: &[Face]) -> Image {
    picture_sized(480, 640, faces)
}

/// A picture of any size with these faces, later ones in front. Both sides are at least 1.
///
/// # Panics
/// When a side is 0.
pub fn picture_sized(width: u32, height: u32, faces: &[Face]) -> Image {
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        for x in 0..width {
            let face = faces.iter().rev().find(|face| face.covers(x, y));
            pixels.extend(face.map_or([GROUND; 3], |face| face.colour()));
        }
    }
    Image::from_rgb(width, height, pixels).expect("three bytes were written for every pixel")
}

/// The unit vector that the scripted embedding gives for a person.
pub fn embedding_of(person: u8) -> Vec<f32> {
    let length = (DIMENSION as f32).sqrt();
    let sign = |index: usize| {
        if (index & usize::from(person)).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
    };
    (0..DIMENSION).map(|index| sign(index) / length).collect()
}

fn file(name: &str, digit: &str) -> ModelFile {
    ModelFile {
        name: name.into(),
        sha256: digit.repeat(64),
        bytes: Arc::from([]),
        input: "input".into(),
    }
}

/// A tail that goes far down: a face that is recognised at all is so in one frame.
fn tail() -> Tail {
    Tail::new(TailEntry {
        knots: vec![[0.0, -0.5], [0.4, -4.0], [0.8, -9.0]],
        correlation: 0.8,
        comparisons: 10_000_000_000,
    })
    .expect("the knots are in order")
}

/// As [`pack`], with a face mesh.
pub fn pack_with_mesh() -> Pack {
    let mesh = MeshSpec { file: file(MESH, "e"), blendshapes: file(BLENDSHAPES, "f") };
    Pack { mesh: Some(mesh), ..pack() }
}

/// As [`pack`], with a landmark network: it moves every point of a detection by the same offset,
/// [`REFINED_BY`].
pub fn pack_with_landmarks() -> Pack {
    let landmarks = LandmarksSpec {
        file: file(LANDMARK_NETWORK, "9"),
        normalisation: NORMALISATION,
        side: REFINED_SIDE,
        // The box of the face is what the network sees.
        template: LANDMARKS.map(|point| point.map(|at| at * REFINED_SIDE as f32)),
    };
    Pack { landmarks: Some(landmarks), ..pack() }
}

/// A complete pack, liveness included. Clear `pad` for a pack without.
///
/// # Panics
/// Never: the score map is a constant that is in order.
pub fn pack() -> Pack {
    Pack {
        name: "scripted".into(),
        notice: Some("Scripted models for tests: they see coloured rectangles, not faces.".into()),
        is_for_door: true,
        detector: DetectorSpec { file: file(DETECTOR, "a"), confidence_min: 0.6 },
        embedding: EmbeddingSpec {
            file: file(EMBEDDING, "b"),
            normalisation: NORMALISATION,
            side: ALIGNED_SIDE as u32,
            template: ALIGNED,
            output: "embedding".into(),
            dimension: DIMENSION,
            score_map: ScoreMap::new(vec![[-1.0, 0.0], [0.4, 0.7], [1.0, 1.0]])
                .expect("the knots are in order"),
            tail: Arc::new(tail()),
        },
        pad: vec![PadSpec {
            file: file(ATTACK_DETECTOR, "c"),
            normalisation: RAW,
            side: ATTACK_SIDE,
            crop_scale: 2.7,
        }],
        pad_score_min: 0.5,
        face_state: Some(FaceStateSpec {
            file: file(FACE_STATE, "d"),
            normalisation: NORMALISATION,
            side: ALIGNED_SIDE as u32,
            template: ALIGNED,
            eyes_closed_min: 0.9,
            covered_min: 0.9,
        }),
        mesh: None,
        landmarks: None,
    }
}

/// Loads scripted networks by their manifest name.
#[derive(Clone, Debug, Default)]
pub struct ScriptedLoader {
    failing: Option<String>,
}

impl ScriptedLoader {
    /// A loader whose network `name` loads, and fails at every run.
    pub fn failing(name: &str) -> Self {
        Self { failing: Some(name.into()) }
    }
}

impl ModelLoader for ScriptedLoader {
    fn load(&self, file: &ModelFile, _threads: usize) -> Result<Box<dyn Model>, InferenceError> {
        if self.failing.as_deref() == Some(&file.name) {
            return Ok(Box::new(Script(|_| {
                let reason = "the script says so".into();
                Err(InferenceError::Run { model: "scripted".into(), reason })
            })));
        }
        match file.name.as_str() {
            DETECTOR => Ok(Box::new(Script(|input| Ok(answers::detect(input))))),
            EMBEDDING => Ok(Box::new(Script(|input| Ok(answers::embed(input))))),
            FACE_STATE => Ok(Box::new(Script(|input| Ok(answers::state(input))))),
            ATTACK_DETECTOR => Ok(Box::new(Script(|input| Ok(answers::judge(input))))),
            MESH => Ok(Box::new(Script(|input| Ok(answers::points(input))))),
            BLENDSHAPES => Ok(Box::new(Script(|_| Ok(answers::expressions())))),
            LANDMARK_NETWORK => Ok(Box::new(Script(|input| Ok(answers::offsets(input))))),
            other => Err(InferenceError::Load {
                model: other.into(),
                reason: "there is no script of that name".into(),
            }),
        }
    }
}

/// A recognizer on the scripted pack.
///
/// # Panics
/// Never: every name of the pack has its script.
pub fn recognizer() -> Recognizer {
    Recognizer::load(&pack(), &ScriptedLoader::default(), 1).expect("every name has its script")
}

/// A pool on the scripted pack.
///
/// # Panics
/// When the system cannot start a thread.
pub fn pool(workers: usize, queue_max: usize) -> RecognizerPool {
    pool_of(&pack(), &ScriptedLoader::default(), PoolOptions { workers, queue_max })
}

/// A pool on a changed pack or a failing loader.
///
/// # Panics
/// When the pack names an unknown script or the system cannot start a thread.
pub fn pool_of(pack: &Pack, loader: &ScriptedLoader, options: PoolOptions) -> RecognizerPool {
    RecognizerPool::start(info(pack), options, || Recognizer::load(pack, loader, 1))
        .expect("scripted networks load and threads start")
}

struct Script(fn(&Tensor) -> Result<Outputs, InferenceError>);

impl Model for Script {
    fn run(&mut self, input: &Tensor) -> Result<Outputs, InferenceError> {
        self.0(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::liveness::{ImageRules, LivenessReason};
    use crate::picture;

    #[test]
    fn painted_faces_are_found_and_told_apart() {
        let faces = [Face::live(3).at(10, 20, 150), Face::live(200).at(250, 300, 200)];
        let picture = picture_of(&faces);
        let mut recognizer = recognizer();
        let found = recognizer.detect(&picture).unwrap();
        assert_eq!(found.len(), 2);
        for (found, painted) in found.iter().zip([faces[1], faces[0]]) {
            let bounds = found.bounds;
            assert!((bounds.x - painted.x as f32).abs() <= 2.0, "{bounds:?}");
            assert!((bounds.bottom() - (painted.y + painted.side as i32) as f32).abs() <= 2.0);
            let template = recognizer.embed(&picture, found).unwrap();
            assert_eq!(template.values(), embedding_of(painted.person));
        }
    }

    #[test]
    fn every_person_has_its_own_direction() {
        let mut recognizer = recognizer();
        for person in 0..=255 {
            let picture = picture_sized(64, 64, &[Face::live(person).at(8, 8, 48)]);
            let face = recognizer.detect(&picture).unwrap()[0];
            let template = recognizer.embed(&picture, &face).unwrap();
            assert_eq!(template.values(), embedding_of(person), "{person}");
        }
        let dot: f32 = embedding_of(7).iter().zip(embedding_of(130)).map(|(a, b)| a * b).sum();
        assert_eq!(dot, 0.0);
    }

    #[test]
    fn faces_survive_a_jpeg_file() {
        let mut recognizer = recognizer();
        for person in 0..=255 {
            let kind = Kind::ALL[usize::from(person) % Kind::ALL.len()];
            let face = Face { kind, ..Face::live(person) };
            let file = picture::encode_jpeg(&picture_of(&[face]), 80);
            let picture = picture::decode(&file).unwrap();
            let faces = recognizer.detect(&picture).unwrap();
            assert_eq!(faces.len(), 1, "{person}");
            let template = recognizer.embed(&picture, &faces[0]).unwrap();
            assert_eq!(template.values(), embedding_of(person), "{person}");
            let report = recognizer.liveness_by(&ImageRules::CAMERA, &picture, &faces);
            let expected = match kind {
                Kind::Live => None,
                Kind::Attack => Some(LivenessReason::FaceNotLive),
                Kind::Turned => Some(LivenessReason::FaceAngleTooLarge),
                Kind::Asleep | Kind::Squinting => Some(LivenessReason::EyesClosed),
                Kind::Masked => Some(LivenessReason::FaceIsOccluded),
            };
            assert_eq!(report.failure, expected, "{person}: {report:?}");
        }
    }

    #[test]
    fn pictures_without_faces_show_none() {
        let mut recognizer = recognizer();
        for grey in [0, 96, 128, 255] {
            let image = Image::from_rgb(40, 30, vec![grey; 3600]).unwrap();
            assert_eq!(recognizer.detect(&image).unwrap(), [], "{grey}");
        }
    }
}
