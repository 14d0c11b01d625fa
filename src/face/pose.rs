//! Where a face looks, estimated from its five landmarks.
//!
//! A cheap estimate for the frame loop and the image rules. With eyes and mouth level, the nose
//! leaves the line between the middle of the eyes and the middle of the mouth in proportion to the
//! tangent of the yaw, and moves along that line with the pitch.
//!
//! The factors are least squares fits to the poses that a mesh of 468 points gave on 999 faces
//! (press portraits and stock photographs, yaw to ±67°, pitch from -28° to 37°). Against the pose
//! of [`crate::face::mesh`] on 5,360 press portraits:
//!
//! - Yaw: correlation .97, mean absolute difference 2.6°, 95 % within 6.7°. Of the difference 1.4°
//!   are constant: mirrored pictures show that the detector's points turn every face 1.6° to the
//!   right of the picture. A limit of 30° refused 25 of the 5,205 faces within it, 85 of the 155
//!   beyond it and 48 of the 57 beyond 35°.
//! - Pitch: correlation only .62, mean absolute difference 5.9°, 95 % within 14.7°, because noses
//!   differ in length; a fit to noise leans towards frontal (a third of the mesh's pitch), so the
//!   limit refused none of the 10 faces beyond 30°, and no other face either.
//!
//! Who needs more asks the mesh. `models/train/mesh_figures.py` measures it.

use crate::face::geometry::Point;

/// Tangent of the yaw for a nose that is off the middle by the mean width of eyes and mouth.
const YAW_FACTOR: f32 = 1.383;
/// Tangent of the pitch for each unit of the nose's way from the eyes (0) to the mouth (1).
const PITCH_FACTOR: f32 = 1.969;
/// The nose's place on that way when the face looks straight ahead.
const NOSE_LEVEL: f32 = 0.551;

/// Head rotation in degrees, -90 to 90.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    /// Turned to the right side of the picture when positive.
    pub yaw_deg: f32,
    /// Looking down when positive.
    pub pitch_deg: f32,
}

/// The pose that explains the landmarks. `None` when no upright face projects to them: eyes or
/// mouth in the wrong order, the mouth above the eyes, or numbers that are not finite.
pub fn estimate(landmarks: &[Point; 5]) -> Option<Pose> {
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = *landmarks;
    let across = Point::new(
        right_eye.x - left_eye.x + right_mouth.x - left_mouth.x,
        right_eye.y - left_eye.y + right_mouth.y - left_mouth.y,
    );
    let length = across.x.hypot(across.y);
    let (cos, sin) = (across.x / length, across.y / length);
    // Coordinates along (u) and across (v) the level of the face.
    let level = |point: Point| (point.x * cos + point.y * sin, point.y * cos - point.x * sin);
    let middle = |a: Point, b: Point| level(Point::new(a.x.midpoint(b.x), a.y.midpoint(b.y)));
    let (eyes, mouth, nose) =
        (middle(left_eye, right_eye), middle(left_mouth, right_mouth), level(nose));
    let height = mouth.1 - eyes.1;
    let descent = (nose.1 - eyes.1) / height;
    let aside = nose.0 - (eyes.0 + (mouth.0 - eyes.0) * descent);
    let yaw_deg = (YAW_FACTOR * aside / (length / 2.0)).atan().to_degrees();
    let pitch_deg = (PITCH_FACTOR * (descent - NOSE_LEVEL)).atan().to_degrees();
    let possible = height > 0.0 && yaw_deg.is_finite() && pitch_deg.is_finite();
    possible.then_some(Pose { yaw_deg, pitch_deg })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONTAL: [Point; 5] = [
        Point::new(-35.0, 0.0),
        Point::new(35.0, 0.0),
        Point::new(0.0, 0.551 * 80.0),
        Point::new(-30.0, 80.0),
        Point::new(30.0, 80.0),
    ];

    fn with_nose(x: f32, y: f32) -> [Point; 5] {
        let mut landmarks = FRONTAL;
        landmarks[2] = Point::new(x, y);
        landmarks
    }

    #[test]
    fn the_nose_points_where_the_face_looks() {
        let ahead = estimate(&FRONTAL).unwrap();
        assert!(ahead.yaw_deg.abs() < 0.01 && ahead.pitch_deg.abs() < 0.01, "{ahead:?}");
        // tan 45° / 1.383 of the mean width of 65 px.
        let right = estimate(&with_nose(65.0 / 1.383, 44.08)).unwrap();
        assert!((right.yaw_deg - 45.0).abs() < 0.01, "{right:?}");
        assert!(estimate(&with_nose(-20.0, 44.08)).unwrap().yaw_deg < -20.0);
        assert!(estimate(&with_nose(0.0, 75.0)).unwrap().pitch_deg > 30.0);
        assert!(estimate(&with_nose(0.0, 10.0)).unwrap().pitch_deg < -30.0);
    }

    #[test]
    fn roll_and_size_change_nothing() {
        let expected = estimate(&with_nose(12.0, 50.0)).unwrap();
        for degrees in [-170.0f32, -60.0, 15.0, 90.0] {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let turned = with_nose(12.0, 50.0).map(|point| {
                Point::new(
                    3.0 * (point.x * cos - point.y * sin),
                    3.0 * (point.x * sin + point.y * cos),
                )
            });
            let found = estimate(&turned).unwrap();
            assert!((found.yaw_deg - expected.yaw_deg).abs() < 0.01, "{degrees}: {found:?}");
            assert!((found.pitch_deg - expected.pitch_deg).abs() < 0.01, "{degrees}: {found:?}");
        }
    }

    #[test]
    fn a_mirror_image_looks_the_other_way() {
        let found = estimate(&with_nose(12.0, 50.0)).unwrap();
        let [left_eye, right_eye, nose, left_mouth, right_mouth] =
            with_nose(12.0, 50.0).map(|point| Point::new(640.0 - point.x, point.y));
        let mirror = estimate(&[right_eye, left_eye, nose, right_mouth, left_mouth]).unwrap();
        assert!((mirror.yaw_deg + found.yaw_deg).abs() < 0.01, "{found:?} {mirror:?}");
        assert!((mirror.pitch_deg - found.pitch_deg).abs() < 0.01, "{found:?} {mirror:?}");
        assert!(found.yaw_deg > 5.0, "{found:?}");
    }

    #[test]
    fn what_no_face_shows_has_no_pose() {
        assert_eq!(estimate(&[Point::default(); 5]), None);
        assert_eq!(estimate(&with_nose(f32::NAN, 0.0)), None);
        let mut mouth_above = FRONTAL;
        mouth_above[3].y = -80.0;
        mouth_above[4].y = -80.0;
        assert_eq!(estimate(&mouth_above), None);
    }
}
