//! The face mesh: 478 points of one face, and what they say of eyes and pose.
//!
//! Owns the crop that `MediaPipe`'s face mesh network wants, the reading of its answer, and the
//! input of the network that turns points into expressions. The crop is level with the eyes, so a
//! head that leans in the picture changes nothing here. "Image-left" is the side in the picture,
//! which is the subject's right.

mod rigid;
mod shape;

use crate::face::alignment::Similarity;
use crate::face::alignment::add_sample;
use crate::face::detection::Detection;
use crate::face::geometry::Point;
use crate::face::image::Image;
use crate::face::pose::Pose;

/// Side of the network's square input in pixels.
pub const SIDE_PX: usize = 256;
/// Points of a mesh: 468 of the skin, 10 of the irises.
pub const POINTS: usize = 478;
/// A mesh with less presence than this has lost the face; `MediaPipe`'s own default.
pub const PRESENCE_MIN: f32 = 0.5;

/// Side of the crop for each pixel of the longer side of the face box, as `MediaPipe` crops.
const CROP_SCALE: f32 = 1.5;
/// Coordinates beyond this are no answer: four times the input to either side.
const COORDINATE_PX_MAX: f32 = 1024.0;
/// Eyes narrower than this cannot be measured: the lids' distance is then taken relative to this.
const EYE_WIDTH_PX_MIN: f32 = 1.0;
/// Largest share of the points' spread that a turned reference shape may leave unexplained. It was
/// at most .055 on 6,729 pictures in which the network saw a face, and is near 1 for noise.
const UNEXPLAINED_MAX: f64 = 0.15;

/// Outer or inner corner, two points of the upper lid, the other corner, two points of the lower
/// lid, as the eye aspect ratio numbers them from 0 to 5; image-left eye first.
const EYES: [[usize; 6]; 2] = [[33, 160, 158, 133, 153, 144], [362, 385, 387, 263, 373, 380]];

/// The points that the network of expressions was trained on, in its order: `kLandmarksSubsetIdxs`
/// of `MediaPipe`'s `face_blendshapes_graph.cc`.
const BLENDSHAPE_POINTS: [usize; 146] = [
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65,
    66, 67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136,
    144, 145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172,
    173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283,
    284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324,
    332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385,
    386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472,
    473, 474, 475, 476, 477,
];
/// Number of expressions.
const BLENDSHAPES: usize = 52;
/// `eyeBlinkRight`: the subject's right eye is the image-left one.
const BLINK_IMAGE_LEFT: usize = 10;
/// `eyeBlinkLeft`.
const BLINK_IMAGE_RIGHT: usize = 9;

/// From the picture to the network's input: a square around the face box with the eyes level.
/// `None` for a box without extent or numbers that are not finite.
pub fn crop(face: &Detection) -> Option<Similarity> {
    let [left_eye, right_eye, ..] = face.landmarks;
    let (sin, cos) = (right_eye.y - left_eye.y).atan2(right_eye.x - left_eye.x).sin_cos();
    let half = CROP_SCALE * face.bounds.width.max(face.bounds.height) / 2.0;
    let centre = face.bounds.centre();
    // The square's middle and corners, in units of half its side.
    let places = [(0.0, 0.0), (-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)];
    let from = places.map(|(u, v)| {
        Point::new(centre.x + half * (u * cos - v * sin), centre.y + half * (u * sin + v * cos))
    });
    let middle = SIDE_PX as f32 / 2.0;
    let to = places.map(|(u, v)| Point::new(middle * (1.0 + u), middle * (1.0 + v)));
    (half > 0.0).then(|| Similarity::between(&from, &to)).flatten()
}

/// The network's input: the crop with one bilinear sample for a pixel, 0 to 1, black outside the
/// picture; red, green and blue of a pixel lie together, as no other network here wants them.
///
/// Averaging where a large face shrinks, as `alignment::warp_into` does, is not worth its time: on
/// 55 photographs with faces higher than 256 px it moved yaw and pitch by .1° and the eye aspect
/// ratios by .003 in the mean; with noise of 24 grey levels single samples were off by .6° and
/// .009, averages by .4° and .006. A picture and its mirror image differ by 1.1° and .027.
pub fn input(image: &Image, to_input: Similarity) -> Vec<f32> {
    let back = to_input.inverse();
    let mut values = vec![0.0; 3 * SIDE_PX * SIDE_PX];
    for (at, rgb) in values.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let place = Point::new((at % SIDE_PX) as f32, (at / SIDE_PX) as f32);
        add_sample(image, back.apply(place), 1.0 / 255.0, rgb);
    }
    values
}

/// Probability that the crop shows a face, from the network's logit; `None` unless there is one
/// number.
pub fn presence(logit: &[f32]) -> Option<f32> {
    let [logit] = *logit else { return None };
    let presence = 1.0 / (1.0 + (-logit).exp());
    (!presence.is_nan()).then_some(presence)
}

/// How far each eye is blinking, 0 to 1, image-left eye first, from the expressions; `None` when
/// they are not 52 finite numbers.
pub fn blink(blendshapes: &[f32]) -> Option<[f32; 2]> {
    let usable = blendshapes.len() == BLENDSHAPES && blendshapes.iter().all(|v| v.is_finite());
    usable.then(|| [blendshapes[BLINK_IMAGE_LEFT], blendshapes[BLINK_IMAGE_RIGHT]])
}

/// The points of one face in pixels of the network's input: x to the right, y down, z away from the
/// camera. Every number is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    points: Vec<[f32; 3]>,
}

impl Mesh {
    /// Reads the network's answer; `None` when it is not 478 points near the input.
    pub fn decode(values: &[f32]) -> Option<Self> {
        let (points, rest) = values.as_chunks::<3>();
        let near = values.iter().all(|value| value.abs() <= COORDINATE_PX_MAX);
        let usable = points.len() == POINTS && rest.is_empty() && near;
        usable.then(|| Self { points: points.to_vec() })
    }

    /// Eye aspect ratio, image-left eye first: the distance between the lids relative to that
    /// between the corners. Turning the head changes it.
    pub fn eye_ratios(&self) -> [f32; 2] {
        EYES.map(|eye| {
            let [outer, upper_a, upper_b, inner, lower_b, lower_a] = eye.map(|i| self.place(i));
            let height = upper_a.distance(lower_a) + upper_b.distance(lower_b);
            height / (2.0 * outer.distance(inner).max(EYE_WIDTH_PX_MIN))
        })
    }

    /// Where the face looks: how the reference shape must be turned to explain the points. The roll
    /// that the crop has left is taken out. `None` when no face that looks towards the camera
    /// explains them.
    pub fn pose(&self) -> Option<Pose> {
        let pairs: Vec<_> = shape::points()
            .map(|(index, reference)| (reference, self.points[index].map(f64::from)))
            .collect();
        let found = rigid::fit(&pairs).filter(|fit| fit.unexplained <= UNEXPLAINED_MAX)?;
        let [[level, _, x], [slope, _, y], [_, _, z]] = found.rotation;
        let (sin, cos) = slope.atan2(level).sin_cos();
        // The third column is where the back of the head points; the face looks the other way.
        let (right, down) = (-(cos * x + sin * y), -(cos * y - sin * x));
        let pose = Pose {
            yaw_deg: right.atan2(z).to_degrees() as f32,
            pitch_deg: down.clamp(-1.0, 1.0).asin().to_degrees() as f32,
        };
        (z > 0.0).then_some(pose)
    }

    /// The input of the network of expressions: x and y of 146 points. It answers alike at any size
    /// and place, but blinking changes by .01 in the mean for points that lean by 10°, so they stay
    /// in the level crop.
    pub fn blendshape_input(&self) -> Vec<f32> {
        BLENDSHAPE_POINTS.iter().flat_map(|&i| [self.points[i][0], self.points[i][1]]).collect()
    }

    fn place(&self, index: usize) -> Point {
        let [x, y, _] = self.points[index];
        Point::new(x, y)
    }
}

/// The network's answer about a face that looks straight ahead with eyes of this aspect ratio, for
/// tests and scripted networks; points that have no part in pose or eyes lie in the corner.
pub fn frontal_values(eye_ratio: f32) -> Vec<f32> {
    let mut points = vec![[0.0f32; 3]; POINTS];
    for (index, place) in shape::points() {
        points[index] = place.map(|value| 128.0 + 90.0 * value as f32);
    }
    for [outer, upper_a, upper_b, inner, lower_b, lower_a] in EYES {
        let [[x, y, z], [inner_x, inner_y, _]] = [points[outer], points[inner]];
        let width = Point::new(x, y).distance(Point::new(inner_x, inner_y));
        let lid = |sign: f32| [x.midpoint(inner_x), y + sign * eye_ratio * width / 2.0, z];
        (points[upper_a], points[upper_b]) = (lid(-1.0), lid(-1.0));
        (points[lower_a], points[lower_b]) = (lid(1.0), lid(1.0));
    }
    points.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::face::geometry::Rect;

    /// A head in degrees and pixels.
    #[derive(Clone, Copy, Debug)]
    struct Head {
        yaw: f64,
        pitch: f64,
        roll: f64,
        eyes_px: f64,
    }

    const AHEAD: Head = Head { yaw: 0.0, pitch: 0.0, roll: 0.0, eyes_px: 90.0 };

    impl Head {
        /// Turned by the pitch first, then the yaw, then the roll, in the middle of the input.
        fn mesh(self) -> Mesh {
            let [yaw, pitch, roll] = [self.yaw, self.pitch, self.roll].map(f64::to_radians);
            let mut points = vec![[0.0; 3]; POINTS];
            for (index, [x, y, z]) in shape::points() {
                let (y, z) = (y * pitch.cos() - z * pitch.sin(), y * pitch.sin() + z * pitch.cos());
                let (x, z) = (x * yaw.cos() - z * yaw.sin(), x * yaw.sin() + z * yaw.cos());
                let (x, y) = (x * roll.cos() - y * roll.sin(), x * roll.sin() + y * roll.cos());
                let place = [128.0 + self.eyes_px * x, 128.0 + self.eyes_px * y, self.eyes_px * z];
                points[index] = place.map(|value| value as f32);
            }
            Mesh { points }
        }
    }

    fn mirrored(mesh: &Mesh) -> Mesh {
        let flip = |[x, y, z]: [f32; 3]| [256.0 - x, y, z];
        let mut points: Vec<_> = mesh.points.iter().copied().map(flip).collect();
        for ([left, right], _) in shape::PAIRS {
            points.swap(left, right);
        }
        Mesh { points }
    }

    /// Shifts between -1 and 1 that look random and are the same in every run.
    fn shaken(mesh: &Mesh, by: f32) -> Mesh {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let points = mesh.points.iter().map(|point| point.map(|value| value + by * next()));
        Mesh { points: points.collect() }
    }

    fn assert_pose(mesh: &Mesh, (yaw, pitch): (f64, f64), tolerance: f64, what: &str) {
        let found = mesh.pose().unwrap_or_else(|| panic!("{what}: no pose"));
        let error = (f64::from(found.yaw_deg) - yaw).hypot(f64::from(found.pitch_deg) - pitch);
        assert!(error < tolerance, "{what}: {found:?}, expected {yaw} {pitch}");
    }

    #[test]
    fn a_turned_shape_has_the_turn_for_its_pose() {
        for yaw in [-75.0, -40.0, -1.0, 0.0, 12.0, 60.0] {
            for pitch in [-50.0, -20.0, 0.0, 5.0, 45.0] {
                for (roll, eyes_px) in [(0.0, 90.0), (-8.0, 60.0), (35.0, 120.0), (180.0, 20.0)] {
                    let head = Head { yaw, pitch, roll, eyes_px };
                    assert_pose(&head.mesh(), (yaw, pitch), 0.1, &format!("{head:?}"));
                }
            }
        }
    }

    #[test]
    fn the_nose_goes_where_the_signs_say() {
        const TIP: usize = 4;
        let tip = |head: Head| head.mesh().points[TIP];
        let ahead = tip(AHEAD);
        assert!(tip(Head { yaw: 20.0, ..AHEAD })[0] > ahead[0] + 5.0, "to the image's right");
        assert!(tip(Head { pitch: 20.0, ..AHEAD })[1] > ahead[1] + 5.0, "down");
        assert!(ahead[2] < -10.0, "the tip is nearest to the camera");
    }

    #[test]
    fn a_mirror_image_looks_the_other_way() {
        for (yaw, pitch) in [(0.0, 0.0), (25.0, 10.0), (-50.0, -20.0)] {
            let mesh = shaken(&Head { yaw, pitch, ..AHEAD }.mesh(), 2.0);
            let (found, mirror) = (mesh.pose().unwrap(), mirrored(&mesh).pose().unwrap());
            assert!((found.yaw_deg + mirror.yaw_deg).abs() < 0.01, "{found:?} {mirror:?}");
            assert!((found.pitch_deg - mirror.pitch_deg).abs() < 0.01, "{found:?} {mirror:?}");
        }
    }

    #[test]
    fn points_that_tremble_move_the_pose_little() {
        let mesh = Head { yaw: 20.0, pitch: -10.0, ..AHEAD }.mesh();
        assert_pose(&shaken(&mesh, 2.0), (20.0, -10.0), 1.0, "2 of 90 px to each side");
    }

    #[test]
    fn what_is_no_face_has_no_pose() {
        let pose = |change: fn([f32; 3]) -> [f32; 3]| {
            Mesh { points: AHEAD.mesh().points.into_iter().map(change).collect() }.pose()
        };
        assert_eq!(pose(|_| [5.0; 3]), None, "a point");
        assert_eq!(pose(|[x, y, _]| [x, y, 0.0]), None, "flat");
        assert_eq!(pose(|[x, y, z]| [-x, y, z]), None, "inside out");
        assert_eq!(pose(|[x, y, z]| [3.0 * x, y, z]), None, "three times as wide");
        assert_eq!(shaken(&AHEAD.mesh(), 90.0).pose(), None, "noise");
        let behind = Head { yaw: 100.0, ..AHEAD }.mesh();
        assert_eq!(behind.pose(), None, "looks away from the camera");
    }

    #[test]
    fn each_eye_has_its_ratio() {
        let mut mesh = AHEAD.mesh();
        let mut place = |index: usize, x: f32, y: f32| mesh.points[index] = [x, y, 7.0];
        // Image-left eye: 40 px wide, 10 px high. The other: 50 px wide, its lids 5 and 3 px apart.
        for (index, x, y) in [
            (33, 60.0, 100.0),
            (133, 100.0, 100.0),
            (160, 70.0, 96.0),
            (144, 70.0, 106.0),
            (158, 90.0, 95.0),
            (153, 90.0, 105.0),
            (362, 150.0, 100.0),
            (263, 200.0, 100.0),
            (385, 165.0, 98.0),
            (380, 165.0, 103.0),
            (387, 185.0, 98.0),
            (373, 185.0, 101.0),
        ] {
            place(index, x, y);
        }
        let [left, right] = mesh.eye_ratios();
        assert!((left - 0.25).abs() < 1e-6 && (right - 0.08).abs() < 1e-6, "{left} {right}");
    }

    #[test]
    fn the_crop_is_level_and_half_again_as_large_as_the_box() {
        let mut face = Detection {
            bounds: Rect { x: 100.0, y: 200.0, width: 120.0, height: 160.0 },
            landmarks: [Point::default(); 5],
            confidence: 0.9,
        };
        face.landmarks[0] = Point::new(130.0, 250.0);
        face.landmarks[1] = Point::new(190.0, 280.0);
        let found = crop(&face).unwrap();
        let near = |found: Point, x: f32, y: f32| {
            assert!(found.distance(Point::new(x, y)) < 1e-2, "{found:?}, expected {x} {y}");
        };
        near(found.apply(Point::new(160.0, 280.0)), 128.0, 128.0);
        assert!((found.scale() - 256.0 / 240.0).abs() < 1e-4);
        let eyes = [face.landmarks[0], face.landmarks[1]].map(|eye| found.apply(eye));
        assert!((eyes[0].y - eyes[1].y).abs() < 1e-2 && eyes[0].x < eyes[1].x, "{eyes:?}");
        face.landmarks[1] = face.landmarks[0];
        assert_eq!(crop(&face).unwrap().rotation_deg(), 0.0, "no eye line, no rotation");
        for width in [0.0, -5.0, f32::NAN, f32::INFINITY] {
            face.bounds = Rect { width, height: width, ..face.bounds };
            assert_eq!(crop(&face), None, "{width}");
        }
    }

    #[test]
    fn answers_of_another_form_are_none() {
        let values: Vec<f32> = AHEAD.mesh().points.into_iter().flatten().collect();
        assert_eq!(Mesh::decode(&values), Some(AHEAD.mesh()));
        assert_eq!(Mesh::decode(&[]), None);
        assert_eq!(Mesh::decode(&values[1..]), None);
        assert_eq!(Mesh::decode(&values[3..]), None);
        assert_eq!(Mesh::decode(&[values.clone(), vec![0.0; 3]].concat()), None);
        for bad in [f32::NAN, f32::INFINITY, -1025.0] {
            let mut values = values.clone();
            values[700] = bad;
            assert_eq!(Mesh::decode(&values), None, "{bad}");
        }
        assert_eq!(presence(&[0.0]), Some(0.5));
        assert_eq!(presence(&[f32::NEG_INFINITY]), Some(0.0));
        assert_eq!(presence(&[f32::NAN]), None);
        assert_eq!(presence(&[]), None);
        assert_eq!(presence(&[1.0, 1.0]), None);
    }

    #[test]
    fn the_subjects_right_eye_blinks_at_the_images_left() {
        let mut expressions = [0.0; BLENDSHAPES];
        (expressions[9], expressions[10]) = (0.9, 0.1);
        assert_eq!(blink(&expressions), Some([0.1, 0.9]));
        expressions[40] = f32::NAN;
        assert_eq!(blink(&expressions), None);
        assert_eq!(blink(&[0.0; 51]), None);
    }

    #[test]
    fn expressions_are_read_from_the_named_points_in_order() {
        let points: Vec<[f32; 3]> = (0..POINTS).map(|i| [i as f32, 0.5, -1.0]).collect();
        let input = Mesh { points }.blendshape_input();
        let (pairs, rest) = input.as_chunks::<2>();
        assert!(pairs.len() == 146 && rest.is_empty());
        assert!(pairs.iter().all(|pair| pair[1] == 0.5));
        assert!(pairs.is_sorted_by(|a, b| a[0] < b[0]), "no index twice");
        assert_eq!(pairs[145], [477.0, 0.5]);
        let eyes = EYES.as_flattened();
        assert!(eyes.iter().all(|&eye| pairs.iter().any(|pair| pair[0] == eye as f32)));
    }

    proptest! {
        #[test]
        fn any_answer_gives_finite_numbers_or_none(
            values in proptest::collection::vec(-1024.0f32..=1024.0, POINTS * 3),
            flatten in prop::array::uniform3(prop::bool::ANY),
        ) {
            let keep = flatten.map(|flat| if flat { 0.0 } else { 1.0 });
            let values: Vec<f32> =
                values.iter().enumerate().map(|(i, value)| value * keep[i % 3]).collect();
            let mesh = Mesh::decode(&values).unwrap();
            prop_assert_eq!(mesh.pose(), None);
            prop_assert!(mesh.eye_ratios().iter().all(|ratio| ratio.is_finite() && *ratio >= 0.0));
            prop_assert!(mesh.blendshape_input().iter().all(|value| value.is_finite()));
        }

        #[test]
        fn shaken_heads_have_finite_poses(
            yaw in -90.0f64..90.0, pitch in -90.0f64..90.0, roll in -180.0f64..180.0,
            eyes_px in 1.0f64..200.0, by in 0.0f32..30.0,
        ) {
            let mesh = shaken(&Head { yaw, pitch, roll, eyes_px }.mesh(), by);
            if let Some(pose) = mesh.pose() {
                prop_assert!(pose.yaw_deg.abs() <= 90.0 && pose.pitch_deg.abs() <= 90.0);
            }
        }

        #[test]
        fn any_box_gives_a_finite_crop_or_none(
            x in -1e6f32..1e6, y in -1e6f32..1e6, width in -10.0f32..1e5, height in -10.0f32..1e5,
            eyes in prop::array::uniform4(-1e5f32..1e5),
        ) {
            let mut landmarks = [Point::default(); 5];
            landmarks[0] = Point::new(eyes[0], eyes[1]);
            landmarks[1] = Point::new(eyes[2], eyes[3]);
            let face =
                Detection { bounds: Rect { x, y, width, height }, landmarks, confidence: 0.9 };
            if let Some(found) = crop(&face) {
                prop_assert!(found.scale().is_finite() && found.scale() > 0.0);
                let middle = found.apply(face.bounds.centre());
                prop_assert!(middle.x.is_finite() && middle.y.is_finite());
            }
        }
    }
}
