//! People who do not exist (`tests/support/people`): that the pipeline takes them for people, tells
//! them apart, and that each reason of the liveness check can be drawn.
//!
//! The pictures are those of `tests/pictures/people`, the models those of the binary; only the
//! test that names the standard pack needs files from outside the repository.
#![cfg(feature = "onnx")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

#[path = "support/people/mod.rs"]
mod people;
#[path = "support/standard.rs"]
mod standard;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use facelatch::face::detection::Detection;
use facelatch::face::image::Image;
use facelatch::face::liveness::ImageRules;
use facelatch::face::liveness::LivenessReason;
use facelatch::face::template::Template;
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

use crate::people::Picture;
use crate::people::Shot;
use crate::people::Truth;
use crate::people::fixtures;
use crate::people::fixtures::Fixture;
use crate::people::render;
use crate::people::scene::Medium;
use crate::people::scene::Walk;
use crate::people::scene::held_up;
use crate::people::scene::varied;
use crate::people::traits::Person;
use crate::standard::needed;
use crate::standard::standard;
use crate::standard::tell;

/// Least confidence of a detection.
const CONFIDENCE_MIN: f32 = 0.7;
/// Greatest distance of the five points of a face from the drawn ones, and of all faces in the mean,
/// in distances between the eyes. Both detectors pull unusual proportions towards the usual ones: on
/// these portraits the mean is at most 0.14; a face upside down or beside its place has 0.5.
const POINTS_OFF_MAX: f32 = 0.35;
const POINTS_OFF_MEAN_MAX: f32 = 0.18;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/people")
}

/// The committed picture.
fn committed(fixture: &Fixture) -> Image {
    let file = folder().join(format!("{}.jpg", fixture.name));
    picture::decode(&fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
        .unwrap()
}

fn image(picture: &Picture) -> Image {
    Image::from_rgb(picture.width as u32, picture.height as u32, picture.rgb.clone()).unwrap()
}

fn runtime(test: &str) -> Option<OnnxLoader> {
    let library = format!("vendor/onnxruntime/{}/libonnxruntime.so", std::env::consts::ARCH);
    let loader = OnnxLoader::new(Some(&needed(test, &library)?)).unwrap();
    tell(&format!("PICTURES drawn {test}"));
    tell(&format!("PACK builtin {test}"));
    Some(loader)
}

fn builtin() -> Pack {
    Manifest::embedded().pack("builtin", None, Path::new("")).unwrap()
}

fn found(recognizer: &mut Recognizer, image: &Image, name: &str) -> Detection {
    let faces = recognizer.detect(image).unwrap();
    assert_eq!(faces.len(), 1, "{name}: {faces:?}");
    assert!(faces[0].confidence >= CONFIDENCE_MIN, "{name}: {faces:?}");
    faces[0]
}

/// Mean distance of the five points from the drawn ones, in distances between the eyes.
fn points_off(face: &Detection, truth: &Truth) -> f32 {
    let [a, b] = [truth.points[0], truth.points[1]];
    let eyes = (b[0] - a[0]).hypot(b[1] - a[1]);
    let pairs = face.landmarks.iter().zip(truth.points);
    pairs.map(|(found, [x, y])| (found.x - x).hypot(found.y - y)).sum::<f32>() / 5.0 / eyes
}

/// Bona fide by decree: drawn people are none of the pictures that attack detectors were trained
/// on, and the other reasons of the chain can be tested without an opinion about that.
struct BonaFide;

impl Model for BonaFide {
    fn run(&mut self, _input: &Tensor) -> Result<Outputs, InferenceError> {
        let values = vec![0.0, 9.0, 0.0];
        Ok(Outputs(vec![("logits".into(), Tensor { shape: vec![1, 3], values })]))
    }
}

/// Name of the attack detector that [`BonaFide`] stands in for.
const STAND_IN: &str = "stand-in";

struct WithStandIn(OnnxLoader);

impl ModelLoader for WithStandIn {
    fn load(&self, file: &ModelFile, threads: usize) -> Result<Box<dyn Model>, InferenceError> {
        if file.name == STAND_IN { Ok(Box::new(BonaFide)) } else { self.0.load(file, threads) }
    }
}

/// The embedded models with their face-state network, and no opinion about attacks.
fn checking() -> Pack {
    let mut pack = builtin();
    let file = ModelFile { name: STAND_IN.into(), ..pack.detector.file.clone() };
    let normalisation = pack.embedding.normalisation;
    pack.pad = vec![PadSpec { file, normalisation, side: 80, crop_scale: 2.7 }];
    pack.pad_score_min = 0.5;
    pack
}

#[test]
fn the_embedded_models_find_the_portraits_and_tell_people_apart() {
    let Some(loader) = runtime("the_embedded_models_find_the_portraits_and_tell_people_apart")
    else {
        return;
    };
    let mut recognizer = Recognizer::load(&builtin(), &loader, 1).unwrap();
    finds_and_tells_apart(&mut recognizer);
}

#[test]
fn the_standard_pack_finds_the_portraits_and_tells_people_apart() {
    let test = "the_standard_pack_finds_the_portraits_and_tells_people_apart";
    let Some((loader, models)) = standard(test) else { return };
    tell(&format!("PICTURES drawn {test}"));
    let pack = Manifest::embedded().pack("standard", None, &models).unwrap();
    let mut recognizer = Recognizer::load(&pack, &loader, 1).unwrap();
    finds_and_tells_apart(&mut recognizer);
}

/// Finds every portrait where it was drawn, and a person's portraits are more alike than two
/// persons': at least nineteen of twenty comparisons fall on the right side of the best threshold,
/// and the means lie far apart.
fn finds_and_tells_apart(recognizer: &mut Recognizer) {
    let mut templates: Vec<(u64, Template)> = Vec::new();
    let mut off = 0.0;
    for (index, fixture) in fixtures::portraits().iter().enumerate() {
        let image = committed(fixture);
        let face = found(recognizer, &image, &fixture.name);
        let this = points_off(&face, &fixture.truths()[0]);
        assert!(
            this < POINTS_OFF_MAX,
            "{}: points off by {this} of the distance of the eyes",
            fixture.name
        );
        off += this / fixtures::portraits().len() as f32;
        let template = recognizer.embed(&image, &face).unwrap();
        templates.push((index as u64 / fixtures::SHOTS, template));
    }
    assert!(off < POINTS_OFF_MEAN_MAX, "points are off by {off} of the distance of the eyes");
    let (mut same, mut other) = (Vec::new(), Vec::new());
    for (index, (person, template)) in templates.iter().enumerate() {
        for (second, another) in &templates[..index] {
            let score = template.cosine(another);
            if person == second { same.push(score) } else { other.push(score) }
        }
    }
    let mean = |scores: &[f32]| scores.iter().sum::<f32>() / scores.len() as f32;
    let (alike, unlike) = (mean(&same), mean(&other));
    assert!(alike > unlike + 0.3, "same {alike}, other {unlike}");
    let right = |limit: f32| {
        let above = |scores: &[f32]| {
            scores.iter().filter(|score| **score > limit).count() as f32 / scores.len() as f32
        };
        f32::midpoint(above(&same), 1.0 - above(&other))
    };
    let best = (0..100).map(|step| right(step as f32 / 100.0)).fold(0.0, f32::max);
    assert!(best >= 0.95, "{best} of the comparisons are right at the best threshold");
}

#[test]
fn each_reason_of_the_liveness_check_can_be_drawn() {
    let Some(loader) = runtime("each_reason_of_the_liveness_check_can_be_drawn") else { return };
    let mut recognizer = Recognizer::load(&checking(), &WithStandIn(loader), 1).unwrap();
    gives_each_reason(&mut recognizer, &[]);
}

#[test]
fn the_whole_liveness_check_of_the_standard_pack_gives_each_reason() {
    let test = "the_whole_liveness_check_of_the_standard_pack_gives_each_reason";
    let Some((loader, models)) = standard(test) else { return };
    tell(&format!("PICTURES drawn {test}"));
    let pack = Manifest::embedded().pack("standard", None, &models).unwrap();
    let mut recognizer = Recognizer::load(&pack, &loader, 1).unwrap();
    // The embedded detector sees three faces in one that fills the picture, and none behind a hand.
    let further = [
        ("near", Some(LivenessReason::FaceTooClose)),
        ("hand-over-eyes", Some(LivenessReason::FaceIsOccluded)),
    ];
    gives_each_reason(&mut recognizer, &further);
}

fn gives_each_reason(recognizer: &mut Recognizer, further: &[(&str, Option<LivenessReason>)]) {
    use LivenessReason as Reason;
    let mut wrong = Vec::new();
    let all = [
        ("open", None),
        ("eyes-closed", Some(Reason::EyesClosed)),
        ("mask", Some(Reason::FaceIsOccluded)),
        ("dark-mask", Some(Reason::FaceIsOccluded)),
        ("sunglasses", Some(Reason::FaceIsOccluded)),
        ("hand-over-mouth", Some(Reason::FaceIsOccluded)),
        ("turned", Some(Reason::FaceAngleTooLarge)),
        ("far", Some(Reason::FaceTooSmall)),
        ("at-the-border", Some(Reason::FaceCloseToBorder)),
        ("cut", Some(Reason::FaceCropped)),
        ("two", Some(Reason::TooManyFaces)),
        ("nobody", Some(Reason::FaceNotFound)),
    ];
    for &(name, expected) in all.iter().chain(further) {
        let file = folder().join(format!("scene-{name}.jpg"));
        let image = picture::decode(&fs::read(file).unwrap()).unwrap();
        let faces = recognizer.detect(&image).unwrap();
        let report = recognizer.liveness_by(&ImageRules::STILL, &image, &faces);
        if report.failure != expected {
            wrong.push(format!("{name}: {report:?}, faces {faces:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_number_names_the_same_person_for_ever() {
    let shot = |person: &Person| Shot { noise: 2.0, ..varied(person, 1, 72.0) };
    let draw = |number: u64| {
        let person = Person::new(number);
        render(72, 72, &[(&person, shot(&person))]).0
    };
    let first = draw(4);
    assert_eq!(first, draw(4), "the same number");
    assert_ne!(first, draw(5), "another number");
}

#[test]
fn the_committed_pictures_are_those_that_are_drawn() {
    // Processors differ in the last digit of a sine, and a JPEG is not exact: near is enough.
    let listed = fixtures::all();
    let mut files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut names: Vec<String> = listed.iter().map(|f| format!("{}.jpg", f.name)).collect();
    files.sort();
    names.sort();
    assert_eq!(files, names, "what is committed and what is listed");
    for name in ["person180-0", "scene-mask"] {
        let fixture = listed.iter().find(|fixture| fixture.name == name).unwrap();
        let (drawn, kept) = (image(&fixture.draw().0), committed(fixture));
        assert_eq!((drawn.width(), drawn.height()), (kept.width(), kept.height()), "{name}");
        let pairs = drawn.pixels().iter().zip(kept.pixels());
        let sum: f64 = pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        let mean = sum / drawn.pixels().len() as f64;
        assert!(mean < 4.0, "{name}: {mean} grey levels apart; make the pictures again");
    }
}

#[test]
fn a_walk_comes_nearer_and_ends_before_the_camera() {
    let walk = Walk { width: 96, height: 72, frames: 5, face_px: [8.0, 30.0], seed: 1 };
    let frames = walk.render(&Person::new(2));
    let widths: Vec<f32> = frames.iter().map(|(_, truth)| truth.bounds[2]).collect();
    assert!(widths.windows(2).all(|pair| pair[1] >= 0.95 * pair[0]), "{widths:?}");
    assert!((25.0..36.0).contains(&widths[4]), "{widths:?}");
    let blinks = walk.shots().iter().filter(|shot| shot.eyes_closed > 0.5).count();
    assert_eq!(blinks, 1, "one blink on the way");
}

#[test]
fn what_is_held_up_lies_in_the_middle_of_the_frame() {
    let grey = |width: usize, height: usize, level: u8| Picture {
        width,
        height,
        rgb: vec![level; width * height * 3],
    };
    let (frame, held) = (grey(120, 90, 90), grey(40, 50, 200));
    for (medium, edge) in [(Medium::Print, 203), (Medium::Phone, 19)] {
        let seen = held_up(&frame, &held, medium, 40.0, 0.0);
        let at = |x: usize, y: usize| seen.rgb[3 * (y * 120 + x)];
        assert_eq!(at(2, 2), 90, "{medium:?}: the frame");
        assert!(at(60, 45) > 150, "{medium:?}: the picture");
        assert!(at(81, 45).abs_diff(edge) < 3, "{medium:?}: its margin is {}", at(81, 45));
    }
}

#[test]
fn extreme_shots_are_drawn_without_a_panic() {
    let person = Person::new(1);
    let base = Shot { face_px: 12.0, ..Shot::default() };
    for shot in [
        Shot { face_px: 0.0, ..base },
        Shot { face_px: 4000.0, ..base },
        Shot { centre: [-40.0, 70.0], ..base },
        Shot { yaw_deg: 180.0, pitch_deg: 90.0, roll_deg: -400.0, ..base },
        Shot { distance_mm: 0.0, blur_px: 40.0, noise: 300.0, ..base },
        Shot { eyes_closed: 9.0, gaze: [50.0, -50.0], ..base },
    ] {
        let (picture, truths) = render(24, 16, &[(&person, shot)]);
        assert_eq!(picture.rgb.len(), 24 * 16 * 3, "{shot:?}");
        assert_eq!(truths.len(), 1, "{shot:?}");
    }
}
