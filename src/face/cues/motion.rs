//! A face that never changes: the same picture, fed again and again.
//!
//! No two frames of a real camera are equal, as each pixel carries its own noise, and living faces
//! move besides. A picture or a paused stream that software feeds into a camera device repeats
//! itself, up to what encoding it again does. So a [`Signature`] takes single pixels, where the
//! average of several would take the noise away that it is about.
//!
//! It does not tell a print from a face: a camera that looks at paper has noise as well. Cameras
//! repeat frames, too (a 15 Hz sensor behind a 30 Hz stream), so a verdict needs a whole track of
//! differences, of which the greatest counts.

use crate::face::alignment::Similarity;
use crate::face::detection::Detection;
use crate::face::geometry::Point;
use crate::face::image::Image;

/// Pixels of a signature along each axis: 576 pixels give the mean of their noise to 3 %, and
/// copying them takes microseconds.
const SIDE: usize = 24;
/// Frames whose greatest [`difference`], in grey levels, stays below this repeat one picture: a
/// JPEG file that is encoded again differs by up to 0.014 from itself, a face that holds still
/// under noise of one grey level by 0.026 or more (design note 0005).
pub const REPEATED_MAX: f32 = 0.02;
/// Where the landmarks lie in a signature: from brow to chin, without background.
const LANDMARKS: [Point; 5] = [
    Point::new(6.0, 7.0),
    Point::new(18.0, 7.0),
    Point::new(12.0, 13.0),
    Point::new(7.5, 18.5),
    Point::new(16.5, 18.5),
];

/// Single pixels of a face at places that follow its landmarks.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    luma: [[u8; SIDE]; SIDE],
}

impl Signature {
    /// `None` when the landmarks have no extent or part of the face lies outside the picture.
    pub fn of(image: &Image, face: &Detection) -> Option<Self> {
        let back = Similarity::between(&LANDMARKS, &face.landmarks)?;
        let mut luma = [[0; SIDE]; SIDE];
        for (y, row) in luma.iter_mut().enumerate() {
            for (x, value) in row.iter_mut().enumerate() {
                let at = back.apply(Point::new(x as f32, y as f32));
                let (x, y) = (at.x.round(), at.y.round());
                let inside =
                    x >= 0.0 && y >= 0.0 && x < image.width() as f32 && y < image.height() as f32;
                if !inside {
                    return None;
                }
                let [red, green, blue] = image.pixel(x as u32, y as u32).map(u16::from);
                *value = ((red + 2 * green + blue) / 4) as u8;
            }
        }
        Some(Self { luma })
    }
}

impl std::fmt::Debug for Signature {
    /// Never the pixels: they are part of a person's face.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Signature({SIDE}x{SIDE})")
    }
}

/// Mean absolute difference of two signatures in grey levels, 0 to 255; 0 for equal pictures with
/// equal landmarks.
pub fn difference(one: &Signature, other: &Signature) -> f32 {
    let pairs = one.luma.as_flattened().iter().zip(other.luma.as_flattened());
    let sum: u32 = pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
    sum as f32 / (SIDE * SIDE) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::face::geometry::Rect;

    fn face(scale: f32, x: f32, y: f32) -> Detection {
        Detection {
            bounds: Rect { x, y, width: 24.0 * scale, height: 30.0 * scale },
            landmarks: LANDMARKS.map(|at| Point::new(x + scale * at.x, y + scale * at.y)),
            confidence: 0.9,
        }
    }

    fn picture(noise: impl Fn(u32) -> i32) -> Image {
        let pixel = |at: u32| {
            let (x, y) = ((at % 320) as i32, (at / 320) as i32);
            [(60 + x / 4 + y / 4 + noise(at)).clamp(0, 255) as u8; 3]
        };
        Image::from_rgb(320, 240, (0..320 * 240).flat_map(pixel).collect()).unwrap()
    }

    /// Uniform on -2..=2.
    fn noise(seed: u32) -> impl Fn(u32) -> i32 {
        move |at| (((at ^ seed).wrapping_mul(2_654_435_761) >> 13) % 5) as i32 - 2
    }

    #[test]
    fn the_same_picture_does_not_differ() {
        let image = picture(noise(1));
        let one = Signature::of(&image, &face(5.0, 80.0, 60.0)).unwrap();
        assert_eq!(difference(&one, &one.clone()), 0.0);
        assert_eq!(format!("{one:?}"), "Signature(24x24)");
    }

    #[test]
    fn the_noise_of_a_sensor_is_a_difference() {
        let place = face(5.0, 80.0, 60.0);
        let [one, other] =
            [1, 77].map(|seed| Signature::of(&picture(noise(seed)), &place).unwrap());
        let found = difference(&one, &other);
        // The mean distance of two values that are uniform on five levels is 1.6.
        assert!((found - 1.6).abs() < 0.25, "{found}");
    }

    #[test]
    fn it_follows_the_face() {
        let shifted = |by: i32| {
            let pixel = |at: u32| {
                let (x, y) = ((at % 320) as i32 - by, (at / 320) as i32);
                [((x * 7 + y * 3).rem_euclid(200)) as u8; 3]
            };
            Image::from_rgb(320, 240, (0..320 * 240).flat_map(pixel).collect()).unwrap()
        };
        let one = Signature::of(&shifted(0), &face(5.0, 80.0, 60.0)).unwrap();
        let moved = Signature::of(&shifted(13), &face(5.0, 93.0, 60.0)).unwrap();
        let stayed = Signature::of(&shifted(13), &face(5.0, 80.0, 60.0)).unwrap();
        assert_eq!(difference(&one, &moved), 0.0);
        assert!(difference(&one, &stayed) > 10.0);
    }

    #[test]
    fn a_face_that_is_not_whole_or_no_face_has_no_signature() {
        let image = picture(noise(1));
        assert!(Signature::of(&image, &face(5.0, -20.0, 60.0)).is_none());
        assert!(Signature::of(&image, &face(5.0, 80.0, 200.0)).is_none());
        let mut none = face(5.0, 80.0, 60.0);
        none.landmarks = [Point::new(5.0, 5.0); 5];
        assert!(Signature::of(&image, &none).is_none());
        none.landmarks[0].x = f32::NAN;
        assert!(Signature::of(&image, &none).is_none());
    }

    proptest! {
        #[test]
        fn any_landmarks_give_an_answer_in_range(
            width in 1u32..50, height in 1u32..50,
            points in prop::collection::vec(-1e3f32..1e3, 10),
        ) {
            let size = width as usize * height as usize * 3;
            let image = Image::from_rgb(width, height, vec![9; size]).unwrap();
            let landmarks = std::array::from_fn(|i| Point::new(points[2 * i], points[2 * i + 1]));
            let any = Detection { landmarks, ..face(1.0, 0.0, 0.0) };
            if let Some(found) = Signature::of(&image, &any) {
                prop_assert_eq!(difference(&found, &found.clone()), 0.0);
            }
        }
    }
}
