//! What a face detector found, and which of several faces a request is about.
//!
//! Landmarks are always in the order image-left eye, image-right eye, nose, image-left mouth
//! corner, image-right mouth corner.

use serde::{Deserialize, Serialize};

use crate::face::geometry::{Point, Rect};

/// One detected face in picture coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The face box; may reach past the picture.
    pub bounds: Rect,
    /// Five points, see the module comment.
    pub landmarks: [Point; 5],
    /// The detector's own score, 0 to 1.
    pub confidence: f32,
}

/// A second face is "of comparable size" when its box has at least this share of the main face's
/// area. At a quarter (half the width) it stands at most twice as far from the camera, close
/// enough to be the person the request is about; a smaller one is background.
pub const COMPARABLE_AREA_MIN: f32 = 0.25;

/// The largest face.
pub fn main_face(faces: &[Detection]) -> Option<&Detection> {
    faces.iter().max_by(|a, b| a.bounds.area().total_cmp(&b.bounds.area()))
}

/// Whether a face other than the main one is of comparable size.
pub fn has_second_face(faces: &[Detection]) -> bool {
    let Some(main) = main_face(faces) else { return false };
    let least = main.bounds.area() * COMPARABLE_AREA_MIN;
    faces.iter().filter(|face| face.bounds.area() >= least).count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(width: f32) -> Detection {
        Detection {
            bounds: Rect { x: 0.0, y: 0.0, width, height: width },
            landmarks: [Point::default(); 5],
            confidence: 0.9,
        }
    }

    #[test]
    fn the_largest_face_is_the_main_one() {
        assert_eq!(main_face(&[]), None);
        assert_eq!(main_face(&[face(10.0), face(30.0), face(20.0)]), Some(&face(30.0)));
    }

    #[test]
    fn a_face_of_half_the_width_is_comparable_and_a_smaller_one_is_not() {
        assert!(has_second_face(&[face(100.0), face(50.0)]));
        assert!(!has_second_face(&[face(100.0), face(49.0)]));
        assert!(!has_second_face(&[face(100.0)]));
        assert!(!has_second_face(&[]));
    }
}
