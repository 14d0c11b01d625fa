//! The face mesh on the real networks and photographs, against numbers that the reference code in
//! Python gave (`tests/golden/record_mesh.py`), and against itself on mirrored and turned pictures.
//!
//! Those networks and photographs are no part of the repository; without them the tests say so and
//! pass. What their twins hold to the same is the pose that the embedded models give drawn heads,
//! whose true pose is known.
#![cfg(feature = "onnx")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "support/embedded.rs"]
mod embedded;
#[path = "support/people/mod.rs"]
mod people;
#[path = "support/standard.rs"]
mod standard;

use std::fs;

use facelatch::face::detection::Detection;
use facelatch::face::geometry::{Point, Rect};
use facelatch::face::image::Image;
use facelatch::face::liveness::ImageRules;
use facelatch::inference::MeshSpec;
use facelatch::inference::manifest::Manifest;
use facelatch::picture;
use facelatch::recognition::Recognizer;
use facelatch::recognition::mesh::{MeshNetwork, MeshReading};

use crate::embedded::BONA_FIDE;
use crate::embedded::WithStandIn;
use crate::embedded::drawn;
use crate::people::scene::CAST;
use crate::people::scene::varied;
use crate::people::traits::Person;
use crate::standard::{needed, standard, tell};

/// What the reference says of a photograph.
struct Golden {
    name: &'static str,
    /// Left, top, width and height of the face box.
    bounds: [f32; 4],
    /// x and y of the image-left eye, then of the image-right one.
    eyes: [f32; 4],
    yaw_pitch_deg: [f32; 2],
    eye_ratios: [f32; 2],
    blink: [f32; 2],
}

/// Among them two people who shut their eyes, and turns of up to 47 degrees.
#[rustfmt::skip]
const GOLDEN: [Golden; 8] = [
    Golden { name: "cgi-model-8", bounds: [400.0, 130.0, 153.0, 197.0], eyes: [460.0, 202.0, 531.0, 204.0], yaw_pitch_deg: [36.10, 17.07], eye_ratios: [0.371, 0.493], blink: [0.042, 0.033] },
    Golden { name: "cgi-model-33", bounds: [420.0, 89.0, 109.0, 146.0], eyes: [443.0, 144.0, 499.0, 145.0], yaw_pitch_deg: [-6.69, 20.49], eye_ratios: [0.394, 0.387], blink: [0.018, 0.014] },
    Golden { name: "stock-emotions-a-2", bounds: [371.0, 189.0, 423.0, 622.0], eyes: [588.0, 425.0, 764.0, 426.0], yaw_pitch_deg: [34.55, 2.49], eye_ratios: [0.297, 0.410], blink: [0.100, 0.084] },
    Golden { name: "stock-emotions-b-1", bounds: [246.0, 257.0, 315.0, 433.0], eyes: [299.0, 433.0, 440.0, 439.0], yaw_pitch_deg: [-22.58, 1.31], eye_ratios: [0.038, 0.015], blink: [0.735, 0.818] },
    Golden { name: "stock-emotions-b-4", bounds: [294.0, 187.0, 270.0, 369.0], eyes: [328.0, 326.0, 450.0, 337.0], yaw_pitch_deg: [-29.22, -1.03], eye_ratios: [0.008, 0.040], blink: [0.639, 0.852] },
    Golden { name: "stock-models-3", bounds: [328.0, 245.0, 125.0, 165.0], eyes: [350.0, 306.0, 398.0, 306.0], yaw_pitch_deg: [-30.63, -6.68], eye_ratios: [0.344, 0.235], blink: [0.222, 0.267] },
    Golden { name: "stock-teen-3", bounds: [234.0, 335.0, 283.0, 384.0], eyes: [254.0, 489.0, 346.0, 486.0], yaw_pitch_deg: [-47.30, -3.65], eye_ratios: [0.598, 0.370], blink: [0.043, 0.075] },
    Golden { name: "stock-teen-6", bounds: [257.0, 341.0, 427.0, 585.0], eyes: [397.0, 563.0, 596.0, 565.0], yaw_pitch_deg: [4.51, -8.76], eye_ratios: [0.217, 0.232], blink: [0.342, 0.299] },
];

fn network(test: &str) -> Option<MeshNetwork> {
    let (loader, models) = standard(test)?;
    let file = |name: &str| Manifest::embedded().file("standard", name, &models).unwrap();
    let spec = MeshSpec { file: file("facemesh"), blendshapes: file("blendshapes") };
    Some(MeshNetwork::load(&spec, &loader, 1).unwrap())
}

type Subject = (&'static Golden, Image, Detection);

/// The networks and the pictures of [`GOLDEN`] with their faces.
fn subjects(test: &str) -> Option<(MeshNetwork, Vec<Subject>)> {
    let network = network(test)?;
    let photos = needed(test, "../shared/faces/photos/vladmandic_human/samples/in")?;
    tell(&format!("PICTURES shared {test}"));
    let subject = |golden: &'static Golden| {
        let bytes = fs::read(photos.join(format!("{}.jpg", golden.name))).unwrap();
        let [x, y, width, height] = golden.bounds;
        let mut landmarks = [Point::default(); 5];
        landmarks[0] = Point::new(golden.eyes[0], golden.eyes[1]);
        landmarks[1] = Point::new(golden.eyes[2], golden.eyes[3]);
        let face = Detection { bounds: Rect { x, y, width, height }, landmarks, confidence: 1.0 };
        (golden, picture::decode(&bytes).unwrap(), face)
    };
    Some((network, GOLDEN.iter().map(subject).collect()))
}

fn assert_near(found: [f32; 2], expected: [f32; 2], tolerance: f32, what: &str) {
    let near = |i: usize| (found[i] - expected[i]).abs() <= tolerance;
    assert!(near(0) && near(1), "{what}: {found:?}, expected {expected:?}");
}

fn angles(reading: &MeshReading) -> [f32; 2] {
    [reading.pose.yaw_deg, reading.pose.pitch_deg]
}

#[test]
fn readings_are_the_references() {
    let Some((mut network, subjects)) = subjects("readings_are_the_references") else { return };
    for (golden, image, face) in subjects {
        let found = network.read(&image, &face).unwrap().expect(golden.name);
        assert_near(angles(&found), golden.yaw_pitch_deg, 0.15, golden.name);
        assert_near(found.eye_ratios, golden.eye_ratios, 0.005, golden.name);
        assert_near(found.blink, golden.blink, 0.005, golden.name);
    }
}

fn mirrored(image: &Image, face: &Detection) -> (Image, Detection) {
    let last = image.width() - 1;
    let picture = painted(image, (image.width(), image.height()), |x, y| Some((last - x, y)));
    let bounds = Rect { x: last as f32 - face.bounds.right(), ..face.bounds };
    let flip = |point: Point| Point::new(last as f32 - point.x, point.y);
    let [left, right, nose, left_mouth, right_mouth] = face.landmarks.map(flip);
    let landmarks = [right, left, nose, right_mouth, left_mouth];
    (picture, Detection { bounds, landmarks, ..*face })
}

/// A picture of `size` whose pixels come from where `source` says; black where it says `None`.
fn painted(
    image: &Image,
    (width, height): (u32, u32),
    source: impl Fn(u32, u32) -> Option<(u32, u32)>,
) -> Image {
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let colour = |(x, y)| source(x, y).map_or([0; 3], |(x, y)| image.pixel(x, y));
    Image::from_rgb(width, height, places.flat_map(colour).collect()).unwrap()
}

#[test]
fn a_mirrored_face_looks_the_other_way_with_its_eyes_exchanged() {
    let test = "a_mirrored_face_looks_the_other_way_with_its_eyes_exchanged";
    let Some((mut network, subjects)) = subjects(test) else { return };
    for (golden, image, face) in subjects {
        let found = network.read(&image, &face).unwrap().expect(golden.name);
        let (image, face) = mirrored(&image, &face);
        let mirror = network.read(&image, &face).unwrap().expect(golden.name);
        let [yaw, pitch] = angles(&found);
        assert_near(angles(&mirror), [-yaw, pitch], 4.0, golden.name);
        let [left, right] = found.eye_ratios;
        assert_near(mirror.eye_ratios, [right, left], 0.1, golden.name);
        let [left, right] = found.blink;
        assert_near(mirror.blink, [right, left], 0.15, golden.name);
    }
}

/// The surroundings of a face, turned about its middle, clockwise on the screen.
fn turned(image: &Image, face: &Detection, degrees: f32) -> (Image, Detection) {
    let centre = face.bounds.centre();
    let side = 2.0 * face.bounds.width.max(face.bounds.height);
    let (sin, cos) = degrees.to_radians().sin_cos();
    let back = |x: u32, y: u32| {
        let (u, v) = (x as f32 - side / 2.0, y as f32 - side / 2.0);
        let (x, y) = (centre.x + u * cos + v * sin, centre.y + v * cos - u * sin);
        let inside = (0.0..image.width() as f32 - 0.5).contains(&x)
            && (0.0..image.height() as f32 - 0.5).contains(&y);
        inside.then(|| (x.round() as u32, y.round() as u32))
    };
    let picture = painted(image, (side as u32, side as u32), back);
    let turn = |point: Point| {
        let (u, v) = (point.x - centre.x, point.y - centre.y);
        Point::new(side / 2.0 + u * cos - v * sin, side / 2.0 + u * sin + v * cos)
    };
    let Rect { width, height, .. } = face.bounds;
    let (x, y) = (side / 2.0 - width / 2.0, side / 2.0 - height / 2.0);
    let bounds = Rect { x, y, width, height };
    (picture, Detection { bounds, landmarks: face.landmarks.map(turn), ..*face })
}

#[test]
fn a_head_that_leans_keeps_its_yaw_and_pitch() {
    let test = "a_head_that_leans_keeps_its_yaw_and_pitch";
    let Some((mut network, subjects)) = subjects(test) else { return };
    for (golden, image, face) in subjects {
        let found = network.read(&image, &face).unwrap().expect(golden.name);
        for degrees in [-40.0, 15.0, 90.0, 180.0] {
            let (image, face) = turned(&image, &face, degrees);
            let lean = network.read(&image, &face).unwrap().expect(golden.name);
            let what = format!("{} by {degrees}", golden.name);
            assert_near(angles(&lean), angles(&found), 2.0, &what);
            assert_near(lean.eye_ratios, found.eye_ratios, 0.04, &what);
        }
    }
}

#[test]
fn where_no_face_is_nothing_is_read() {
    let Some((mut network, subjects)) = subjects("where_no_face_is_nothing_is_read") else {
        return;
    };
    let (_, _, face) = subjects[0];
    let (width, height) = (600, 400);
    let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
    for (what, pixels) in [
        ("black", vec![0; 3 * width * height]),
        ("grey", vec![128; 3 * width * height]),
        ("noise", (0..3 * (width * height) as u32).map(noise).collect()),
    ] {
        let image = Image::from_rgb(width as u32, height as u32, pixels).unwrap();
        assert_eq!(network.read(&image, &face).unwrap(), None, "{what}");
    }
}

/// Portraits of the cast with their true yaw and pitch, frontal and varied.
fn heads() -> Vec<(String, Image, [f32; 2])> {
    let portrait = |(person, number): (u64, u64)| {
        let shot = varied(&Person::new(person), number, 256.0);
        let name = format!("person{person}-{number}");
        let image = drawn(&name);
        (name, image, [shot.yaw_deg, shot.pitch_deg])
    };
    CAST.into_iter()
        .flat_map(|person| [0, 1, 2, 3].map(|number| (person, number)))
        .map(portrait)
        .collect()
}

/// Yaw and pitch that the check reports for the one face, and the face.
fn reported(recognizer: &mut Recognizer, image: &Image) -> ([f32; 2], Detection) {
    let face = embedded::only_face(recognizer, image);
    (pose_of(recognizer, image, &face), face)
}

fn pose_of(recognizer: &mut Recognizer, image: &Image, face: &Detection) -> [f32; 2] {
    let report = recognizer.liveness_by(&ImageRules::ANY_SIZE, image, &[*face]);
    let pose = report.pose.expect("an upright face has a pose");
    [pose.yaw_deg, pose.pitch_deg]
}

#[test]
fn drawn_heads_look_where_they_were_turned() {
    let test = "drawn_heads_look_where_they_were_turned";
    let Some(loader) = embedded::runtime(test) else { return };
    let mut recognizer = WithStandIn::new(loader, BONA_FIDE).recognizer();
    let mut off = [0.0; 2];
    let heads = heads();
    for (name, image, drawn) in &heads {
        let (found, _) = reported(&mut recognizer, image);
        // Measured: at most 6.8 and 10.6; 2.1 and 3.7 in the mean.
        assert_near(found, *drawn, 15.0, name);
        for axis in 0..2 {
            off[axis] += (found[axis] - drawn[axis]).abs() / heads.len() as f32;
        }
    }
    assert!(off[0] < 4.0 && off[1] < 6.0, "off by {off:?} in the mean");
}

#[test]
fn a_mirrored_drawn_head_looks_the_other_way() {
    let test = "a_mirrored_drawn_head_looks_the_other_way";
    let Some(loader) = embedded::runtime(test) else { return };
    let mut recognizer = WithStandIn::new(loader, BONA_FIDE).recognizer();
    for (name, image, _) in heads() {
        let ([yaw, pitch], face) = reported(&mut recognizer, &image);
        let (mirror, mirrored_face) = mirrored(&image, &face);
        let found = pose_of(&mut recognizer, &mirror, &mirrored_face);
        // Measured: at most 6.9, here and where heads lean.
        assert_near(found, [-yaw, pitch], 12.0, &name);
    }
}

#[test]
fn a_drawn_head_that_leans_keeps_its_yaw_and_pitch() {
    let test = "a_drawn_head_that_leans_keeps_its_yaw_and_pitch";
    let Some(loader) = embedded::runtime(test) else { return };
    let mut recognizer = WithStandIn::new(loader, BONA_FIDE).recognizer();
    for (name, image, _) in heads() {
        let (straight, face) = reported(&mut recognizer, &image);
        for degrees in [-30.0, 15.0] {
            let (leaning, leaning_face) = turned(&image, &face, degrees);
            let found = pose_of(&mut recognizer, &leaning, &leaning_face);
            assert_near(found, straight, 12.0, &name);
        }
    }
}
