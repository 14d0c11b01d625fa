//! The recognition path on the real networks of the standard pack, against numbers that the
//! reference code in Python (onnxruntime, numpy, cv2) gave for the same pictures.
//!
//! Those networks and sample pictures are no part of the repository; without them these tests say so
//! and pass. Their twins on the embedded models and drawn people remain; of the embedded attack pair
//! only the recorded outputs do, since drawings are nothing that it was trained on.
#![cfg(feature = "onnx")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

#[path = "support/embedded.rs"]
mod embedded;
#[path = "support/people/mod.rs"]
mod people;
#[path = "support/standard.rs"]
mod standard;

use std::fs;
use std::path::{Path, PathBuf};

use facelatch::face::detection::Detection;
use facelatch::face::geometry::{Point, Rect};
use facelatch::face::image::Image;
use facelatch::face::liveness::Cue;
use facelatch::face::liveness::ImageRules;
use facelatch::face::liveness::LivenessReason;
use facelatch::inference::Pack;
use facelatch::inference::manifest::Manifest;
use facelatch::picture;
use facelatch::recognition::Recognizer;

use crate::embedded::BONA_FIDE;
use crate::embedded::STAND_IN_SIDE;
use crate::embedded::WithStandIn;
use crate::embedded::drawn;
use crate::embedded::only_face;
use crate::people::fixtures;
use crate::standard::{needed, standard, tell};

/// A recognizer on the standard pack as the manifest describes it, with the `f32` embedding that
/// the reference ran; `None` when something is missing, as `needed` says.
fn recognizer(test: &str) -> Option<Recognizer> {
    let (loader, models) = standard(test)?;
    let pack = Manifest::embedded().pack("standard", Some("mobilefacenet"), &models).unwrap();
    Some(Recognizer::load(&pack, &loader, 1).unwrap())
}

fn read(path: &Path) -> Image {
    picture::decode(&fs::read(path).unwrap()).unwrap()
}

/// Left, top, right and bottom of the face in `tests/golden/cartoon.png`, decoded from the
/// network's answer by the Python reference.
const CARTOON: [f32; 4] = [22.345, 18.874, 73.223, 83.311];
/// The first components of its template.
const CARTOON_TEMPLATE: [f32; 8] =
    [0.0807, 0.0219, -0.049, -0.0379, 0.065, -0.0094, -0.1927, 0.0811];

#[test]
fn the_drawn_face_has_the_references_box_and_template() {
    let test = "the_drawn_face_has_the_references_box_and_template";
    let Some(mut recognizer) = recognizer(test) else { return };
    let image = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cartoon.png"));
    let face = only_face(&mut recognizer, &image);
    let found = [face.bounds.x, face.bounds.y, face.bounds.right(), face.bounds.bottom()];
    for (found, expected) in found.into_iter().zip(CARTOON) {
        assert!((found - expected).abs() < 0.2, "{found}, expected {expected}");
    }
    let template = recognizer.embed(&image, &face).unwrap();
    for (found, expected) in template.values().iter().zip(CARTOON_TEMPLATE) {
        assert!((found - expected).abs() < 0.01, "{found}, expected {expected}");
    }
}

#[test]
fn attack_scores_are_the_references() {
    let test = "attack_scores_are_the_references";
    let Some(mut recognizer) = recognizer(test) else { return };
    let Some(samples) = needed(test, "../shared/faces/spoof") else { return };
    tell(&format!("PICTURES shared {test}"));
    // The reference's mean over both networks. The first fake lies on the networks' boundary
    // (.007 and .539), where the box's last pixel counts.
    for (sample, score, tolerance) in [
        ("bona-fide/minivision_T1.jpg", 1.0, 0.01),
        ("attack/minivision_F1.jpg", 0.273, 0.05),
        ("attack/minivision_F2.jpg", 0.0026, 0.01),
        ("bona-fide/vietmoney_true_001.jpg", 0.999, 0.01),
        ("bona-fide/vietmoney_true_002.jpg", 0.944, 0.03),
        ("attack/vietmoney_fake_002.jpg", 0.016, 0.01),
        ("attack/vietmoney_fake_003.jpg", 0.016, 0.01),
    ] {
        let image = read(&samples.join(sample));
        let face = only_face(&mut recognizer, &image);
        // One of the fakes is turned by 32 degrees, which would be the reason.
        let rules = ImageRules { angle_deg_max: 45.0, ..ImageRules::STILL };
        let report = recognizer.liveness_by(&rules, &image, &[face]);
        let pad = report.findings.iter().find(|finding| finding.cue == Cue::Pad);
        let found = pad.unwrap_or_else(|| panic!("{sample}: {report:?}")).score;
        assert!((found - score).abs() < tolerance, "{sample}: {found}, expected {score}");
        let failure = (score < 0.5).then_some(LivenessReason::FaceNotLive);
        assert_eq!(report.failure, failure, "{sample}");
    }
}

#[test]
fn the_embedded_pack_judges_by_its_own_pair() {
    let test = "the_embedded_pack_judges_by_its_own_pair";
    let Some(loader) = embedded::loader(test) else { return };
    let Some(samples) = needed(test, "../shared/faces/spoof") else { return };
    tell(&format!("PICTURES shared {test}"));
    tell(&format!("PACK builtin {test}"));
    let mut recognizer = Recognizer::load(&embedded::builtin(), &loader, 1).unwrap();
    // What the pair said when it was committed, `None` where the chain ended before it was asked, and
    // the reason of the whole check under the camera's rules. The last but one passes.
    let not_live = Some(LivenessReason::FaceNotLive);
    for (sample, score, reason) in [
        ("bona-fide/minivision_T1.jpg", Some(0.963), None),
        ("bona-fide/vietmoney_true_001.jpg", Some(0.919), None),
        ("bona-fide/vietmoney_true_002.jpg", Some(0.992), None),
        ("bona-fide/vietmoney_true_003.png", Some(0.613), None),
        ("attack/minivision_F1.jpg", None, Some(LivenessReason::FaceAngleTooLarge)),
        ("attack/minivision_F2.jpg", Some(0.322), not_live),
        ("attack/vietmoney_fake_001.jpg", Some(0.871), not_live),
        ("attack/vietmoney_fake_002.jpg", Some(0.668), None),
        ("attack/vietmoney_fake_003.jpg", Some(0.215), not_live),
    ] {
        let image = read(&samples.join(sample));
        let face = only_face(&mut recognizer, &image);
        let report = recognizer.liveness_by(&ImageRules::CAMERA, &image, &[face]);
        let pad = report.findings.iter().find(|finding| finding.cue == Cue::Pad);
        let found = pad.map(|finding| finding.score);
        let close = found.zip(score).is_none_or(|(found, score)| (found - score).abs() < 0.03);
        assert!(close && found.is_some() == score.is_some(), "{sample}: {report:?}");
        assert_eq!(report.failure, reason, "{sample}: {report:?}");
    }
}

#[test]
fn attack_scores_of_a_drawn_face_are_what_the_detector_says() {
    let test = "attack_scores_of_a_drawn_face_are_what_the_detector_says";
    let Some(loader) = embedded::runtime(test) else { return };
    let image = drawn("scene-open");
    let mut stand_in = WithStandIn::new(loader, BONA_FIDE);
    for (says, score) in [
        ([0.0, 9.0, 0.0], 0.9998),
        ([9.0, 0.0, 0.0], 0.0001),
        ([0.0, 0.0, 9.0], 0.0001),
        ([1.0, 2.0, 0.0], 0.665),
        ([2.0, 1.0, 0.0], 0.245),
    ] {
        stand_in.says = says;
        let mut recognizer = stand_in.recognizer();
        let face = only_face(&mut recognizer, &image);
        let report = recognizer.liveness(&image, &[face]);
        let pad = report.findings.iter().find(|finding| finding.cue == Cue::Pad);
        let found = pad.unwrap_or_else(|| panic!("{says:?}: {report:?}")).score;
        assert!((found - score).abs() < 0.001, "{says:?}: {found}, expected {score}");
        let failure = (score < 0.5).then_some(LivenessReason::FaceNotLive);
        assert_eq!(report.failure, failure, "{says:?}");
    }
    // It was shown the face with its surroundings, and the whole of that once for each question.
    let seen = stand_in.seen.lock().unwrap();
    assert_eq!(seen.len(), 5);
    let side = STAND_IN_SIDE as usize;
    assert!(seen.iter().all(|tensor| tensor.shape == [1, 3, side, side]));
    let values = &seen[0].values;
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let spread = values.iter().map(|value| (value - mean).abs()).sum::<f32>();
    assert!(spread / values.len() as f32 > 0.2, "the crop holds a picture");
}

#[test]
fn a_drawn_face_keeps_box_and_template_where_ever_it_stands() {
    let test = "a_drawn_face_keeps_box_and_template_where_ever_it_stands";
    let Some(loader) = embedded::runtime(test) else { return };
    let mut recognizer = Recognizer::load(&embedded::builtin(), &loader, 1).unwrap();
    let mut wrong = Vec::new();
    for person in people::scene::CAST {
        let image = drawn(&format!("person{person}-0"));
        let face = only_face(&mut recognizer, &image);
        let template = recognizer.embed(&image, &face).unwrap();
        for [x, y] in [[13.0, 0.0], [0.0, 17.0], [24.0, 11.0]] {
            let (width, height) = (image.width() as f32 - x, image.height() as f32 - y);
            let moved = image.crop(Rect { x, y, width, height });
            let again = only_face(&mut recognizer, &moved);
            let back = Rect { x: again.bounds.x + x, y: again.bounds.y + y, ..again.bounds };
            let overlap = back.iou(face.bounds);
            let cosine = recognizer.embed(&moved, &again).unwrap().cosine(&template);
            // Measured: at least 0.86 and 0.974.
            if overlap < 0.75 || cosine < 0.9 {
                wrong.push(format!("{person} by {x}, {y}: overlap {overlap}, cosine {cosine}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Two pictures each of the first people in a folder that holds one folder for each person.
fn pairs_of_pictures(people: &Path, count: usize) -> Vec<[PathBuf; 2]> {
    let sorted = |folder: &Path| {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let pair = |folder: &PathBuf| sorted(folder).first_chunk::<2>().cloned();
    sorted(people).iter().filter_map(pair).take(count).collect()
}

#[test]
fn one_person_is_more_alike_than_two() {
    let test = "one_person_is_more_alike_than_two";
    let Some(mut recognizer) = recognizer(test) else { return };
    let Some(people) = needed(test, "../shared/faces/lfw/people") else { return };
    tell(&format!("PICTURES shared {test}"));
    let mut template = |path: &PathBuf| {
        let image = read(path);
        let faces = recognizer.detect(&image).unwrap();
        recognizer.embed(&image, &faces[0]).unwrap()
    };
    let pairs: Vec<_> =
        pairs_of_pictures(&people, 20).iter().map(|p| p.each_ref().map(&mut template)).collect();
    let same: f32 = pairs.iter().map(|[one, two]| one.cosine(two)).sum::<f32>() / 20.0;
    let neighbours = pairs.iter().zip(&pairs[1..]);
    let other: f32 = neighbours.map(|([one, _], [_, two])| one.cosine(two)).sum::<f32>() / 19.0;
    assert!(same > 0.55 && other < 0.15, "same {same}, other {other}");
}

/// Mean distance of the main faces' five points from the reference's, in its distances between the
/// eyes.
fn point_error(
    recognizer: &mut Recognizer,
    reference: &mut Recognizer,
    pictures: &[[PathBuf; 2]],
) -> f32 {
    let mut errors = Vec::new();
    for path in pictures.iter().flatten() {
        let image = read(path);
        let [found, expected] = [&mut *recognizer, &mut *reference]
            .map(|recognizer| recognizer.detect(&image).unwrap().first().copied());
        let (Some(found), Some(expected)) = (found, expected) else { continue };
        // Another main face than the reference's says nothing about points.
        if found.bounds.iou(expected.bounds) > 0.5 {
            let eyes = expected.landmarks[0].distance(expected.landmarks[1]);
            let points = found.landmarks.iter().zip(expected.landmarks);
            errors.extend(points.map(|(found, expected)| found.distance(expected) / eyes));
        }
    }
    assert!(errors.len() > pictures.len() * 8, "most faces are compared: {}", errors.len() / 5);
    errors.iter().sum::<f32>() / errors.len() as f32
}

#[test]
fn the_second_stage_of_the_embedded_pack_brings_its_points_near_the_standard_detectors() {
    let test =
        "the_second_stage_of_the_embedded_pack_brings_its_points_near_the_standard_detectors";
    let Some((loader, models)) = standard(test) else { return };
    let Some(people) = needed(test, "../shared/faces/lfw/people") else { return };
    tell(&format!("PICTURES shared {test}"));
    let load = |pack: &Pack| Recognizer::load(pack, &loader, 1).unwrap();
    let manifest = Manifest::embedded();
    let mut reference = load(&manifest.pack("standard", None, &models).unwrap());
    let builtin = manifest.pack("builtin", None, &models).unwrap();
    let mut coarse = load(&Pack { landmarks: None, ..builtin.clone() });
    let mut fine = load(&builtin);
    let pictures = pairs_of_pictures(&people, 20);
    let coarse = point_error(&mut coarse, &mut reference, &pictures);
    let fine = point_error(&mut fine, &mut reference, &pictures);
    // One look of the reference is itself off by some 6 %, which no second stage can undo.
    assert!(fine < 0.065 && fine < 0.9 * coarse, "{coarse} without it, {fine} with it");
}

#[test]
fn the_second_stage_of_the_embedded_pack_brings_its_points_nearer_to_the_drawn_ones() {
    let test = "the_second_stage_of_the_embedded_pack_brings_its_points_nearer_to_the_drawn_ones";
    let Some(loader) = embedded::runtime(test) else { return };
    let fine = embedded::builtin();
    let coarse = Pack { landmarks: None, ..fine.clone() };
    let [coarse, fine] = [coarse, fine].map(|pack| {
        let mut recognizer = Recognizer::load(&pack, &loader, 1).unwrap();
        let portraits = fixtures::portraits();
        let mut sum = 0.0;
        for fixture in &portraits {
            let face = only_face(&mut recognizer, &drawn(&fixture.name));
            let truth = fixture.truths()[0].points.map(|[x, y]| Point::new(x, y));
            let eyes = truth[0].distance(truth[1]);
            let points = face.landmarks.iter().zip(truth);
            sum += points.map(|(found, drawn)| found.distance(drawn) / eyes).sum::<f32>() / 5.0;
        }
        sum / portraits.len() as f32
    });
    // Measured: 0.128 and 0.103. Both stages pull unusual proportions towards the usual ones.
    assert!(fine < 0.125 && fine < 0.9 * coarse, "{coarse} without it, {fine} with it");
}

/// A picture of noise that repeats from run to run.
fn noise(width: u32, height: u32) -> Image {
    let mut state = 0x2545_F491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    Image::from_rgb(width, height, (0..width * height * 3).map(|_| next()).collect()).unwrap()
}

fn plain(width: u32, height: u32, level: u8) -> Image {
    Image::from_rgb(width, height, vec![level; (width * height * 3) as usize]).unwrap()
}

#[test]
fn every_picture_ends_in_one_reason_or_success() {
    let test = "every_picture_ends_in_one_reason_or_success";
    let Some(mut recognizer) = recognizer(test) else { return };
    every_picture_ends(&mut recognizer);
}

#[test]
fn every_picture_ends_in_one_reason_with_the_embedded_models() {
    let test = "every_picture_ends_in_one_reason_with_the_embedded_models";
    let Some(loader) = embedded::runtime(test) else { return };
    every_picture_ends(&mut WithStandIn::new(loader, BONA_FIDE).recognizer());
}

fn every_picture_ends(recognizer: &mut Recognizer) {
    for picture in [
        plain(1, 1, 0),
        plain(10_000, 1, 128),
        plain(1, 10_000, 128),
        plain(640, 480, 0),
        plain(640, 480, 255),
        noise(1, 1),
        noise(640, 480),
        noise(31, 977),
    ] {
        let faces = recognizer.detect(&picture).unwrap();
        let report = recognizer.liveness(&picture, &faces);
        // Whatever the detector sees in noise, it is no live face.
        assert!(report.failure.is_some(), "{picture:?}: {report:?}");
        if faces.is_empty() {
            assert_eq!(report.failure, Some(LivenessReason::FaceNotFound));
        }
        // Boxes that no detector gives, on pictures of any shape.
        let landmarks = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]];
        for (x, y, side) in
            [(0.0, 0.0, 1.0), (-50.0, -50.0, 900.0), (1e9, 5.0, 200.0), (5.0, 5.0, 1e9)]
        {
            let at = |[dx, dy]: [f32; 2]| Point::new(x + dx * side, y + dy * side);
            let bounds = Rect { x, y, width: side, height: side };
            let face = Detection { bounds, landmarks: landmarks.map(at), confidence: 1.0 };
            recognizer.liveness_by(&ImageRules::ANY_SIZE, &picture, &[face]);
            for rules in [ImageRules::STILL, ImageRules::CAMERA] {
                let report = recognizer.liveness_by(&rules, &picture, &[face]);
                assert!(report.failure.is_some(), "{picture:?} {face:?}: {report:?}");
            }
        }
    }
}

#[test]
fn a_face_at_the_border_ends_in_one_reason() {
    let test = "a_face_at_the_border_ends_in_one_reason";
    let Some(mut recognizer) = recognizer(test) else { return };
    let Some(samples) = needed(test, "../shared/faces/spoof") else { return };
    tell(&format!("PICTURES shared {test}"));
    border_ends_in_one_reason(&mut recognizer, &read(&samples.join("bona-fide/minivision_T1.jpg")));
}

#[test]
fn a_drawn_face_at_the_border_ends_in_one_reason() {
    let test = "a_drawn_face_at_the_border_ends_in_one_reason";
    let Some(loader) = embedded::runtime(test) else { return };
    let mut recognizer = WithStandIn::new(loader, BONA_FIDE).recognizer();
    border_ends_in_one_reason(&mut recognizer, &drawn("scene-open"));
}

/// Takes more and more of the left of a live picture away.
fn border_ends_in_one_reason(recognizer: &mut Recognizer, whole: &Image) {
    let face = only_face(recognizer, whole);
    let mut reasons = Vec::new();
    for step in 0..12_u8 {
        // The left part of the picture goes, up to the middle of the face.
        let share = f32::from(step) / 11.0;
        let x = share * face.bounds.centre().x;
        let width = whole.width() as f32 - x;
        let cut = whole.crop(Rect { x, y: 0.0, width, height: whole.height() as f32 });
        let faces = recognizer.detect(&cut).unwrap();
        reasons.push(recognizer.liveness(&cut, &faces).failure);
    }
    assert_eq!(reasons[0], None, "the whole picture is live: {reasons:?}");
    assert!(reasons[11].is_some(), "half a face is not: {reasons:?}");
    assert!(reasons.contains(&Some(LivenessReason::FaceCloseToBorder)), "{reasons:?}");
}
