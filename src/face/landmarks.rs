//! The second stage of the five points: from the detector's, which may be coarse, to refined ones.
//!
//! A network looks at the face that the detector's points put upright and answers how far each
//! point lies from where it should be. Its output `offsets` holds x and y of the five points, in
//! the usual order, as parts of the distance between the eyes of the template that the face was
//! aligned to.

use crate::face::alignment::Similarity;
use crate::face::geometry::Point;

/// Values of the network's answer: x and y of five points.
pub const OFFSETS: usize = 10;

/// Farthest that a point may be moved, in distances between the eyes: less than from an eye to the
/// nose, about .75. A network that wants more is shown no face, or one that the detector's points
/// have turned on its head.
pub const OFFSET_MAX: f32 = 0.6;

/// The points where the network says that they are, in picture coordinates; `to_template` is the
/// transform that showed it the face. `None` when a number is not finite or any point would move
/// farther than [`OFFSET_MAX`]: then nothing that it said is to be trusted.
pub fn refined(
    to_template: Similarity,
    template: &[Point; 5],
    offsets: &[f32; OFFSETS],
) -> Option<[Point; 5]> {
    let (moves, _) = offsets.as_chunks::<2>();
    // A length that is no number is not within the bound either.
    if !moves.iter().all(|[x, y]| x.hypot(*y) <= OFFSET_MAX) {
        return None;
    }
    let unit = template[0].distance(template[1]);
    let back = to_template.inverse();
    let points = std::array::from_fn(|at| {
        let ([x, y], from) = (moves[at], template[at]);
        back.apply(Point::new(from.x + x * unit, from.y + y * unit))
    });
    points.iter().all(|point: &Point| point.x.is_finite() && point.y.is_finite()).then_some(points)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// On 64 pixels; the eyes lie 20 apart.
    const TEMPLATE: [Point; 5] = [
        Point::new(22.0, 29.0),
        Point::new(42.0, 29.0),
        Point::new(32.0, 41.0),
        Point::new(24.0, 53.0),
        Point::new(40.0, 53.0),
    ];

    /// The five points as a picture shows them.
    fn seen(points: &[Point; 5], degrees: f32, scale: f32, shift: Point) -> [Point; 5] {
        let (sin, cos) = degrees.to_radians().sin_cos();
        points.map(|Point { x, y }| {
            let (turned_x, turned_y) = (cos * x - sin * y, sin * x + cos * y);
            Point::new(scale * turned_x + shift.x, scale * turned_y + shift.y)
        })
    }

    fn near(found: &[Point; 5], expected: &[Point; 5], tolerance: f32) -> bool {
        found.iter().zip(expected).all(|(a, b)| a.distance(*b) <= tolerance)
    }

    #[test]
    fn offsets_are_parts_of_the_distance_between_the_eyes() {
        // Twice as large and 100 to the right; one point has moved by half a distance.
        let face = seen(&TEMPLATE, 0.0, 2.0, Point::new(100.0, 0.0));
        let to_template = Similarity::between(&face, &TEMPLATE).unwrap();
        let mut offsets = [0.0; OFFSETS];
        (offsets[4], offsets[5]) = (0.5, -0.25);
        let found = refined(to_template, &TEMPLATE, &offsets).unwrap();
        let mut expected = face;
        expected[2] = Point::new(100.0 + 2.0 * (32.0 + 10.0), 2.0 * (41.0 - 5.0));
        assert!(near(&found, &expected, 1e-3), "{found:?} {expected:?}");
    }

    #[test]
    fn points_stay_where_the_detector_saw_them_when_the_answer_is_no_answer() {
        let to_template = Similarity::between(&TEMPLATE, &TEMPLATE).unwrap();
        for at in 0..OFFSETS {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.601, -0.601] {
                let mut offsets = [0.0; OFFSETS];
                offsets[at] = value;
                assert_eq!(refined(to_template, &TEMPLATE, &offsets), None, "{at} {value}");
            }
            let mut offsets = [0.0; OFFSETS];
            offsets[at] = OFFSET_MAX;
            assert!(refined(to_template, &TEMPLATE, &offsets).is_some(), "{at}");
        }
        // The bound is one of lengths: .45 to the side and down are .64.
        assert_eq!(refined(to_template, &TEMPLATE, &[0.45; OFFSETS]), None);
        assert!(refined(to_template, &TEMPLATE, &[0.4; OFFSETS]).is_some());
    }

    #[test]
    fn points_that_leave_the_numbers_stay_as_well() {
        for scale in [1e-25, 1e25] {
            let face = seen(&TEMPLATE, 0.0, scale, Point::default());
            if let Some(to_template) = Similarity::between(&face, &TEMPLATE) {
                let found = refined(to_template, &TEMPLATE, &[0.1; OFFSETS]);
                let finite = |points: [Point; 5]| points.iter().all(|point| point.x.is_finite());
                assert!(found.is_none_or(finite), "{scale}: {found:?}");
            }
        }
    }

    proptest! {
        /// Whatever the pose, a network that answers where the points are puts them there.
        #[test]
        fn a_right_answer_leads_to_the_right_points(
            degrees in -180.0f32..180.0,
            scale in 0.2f32..20.0,
            (x, y) in (-2000.0f32..2000.0, -2000.0f32..2000.0),
            coarse in prop::collection::vec(-0.2f32..0.2, OFFSETS),
            offsets in prop::array::uniform10(-0.4f32..0.4),
        ) {
            let at = |values: &[f32], from: &[Point; 5]| -> [Point; 5] {
                std::array::from_fn(|i| {
                    let (dx, dy) = (20.0 * values[2 * i], 20.0 * values[2 * i + 1]);
                    Point::new(from[i].x + dx, from[i].y + dy)
                })
            };
            let shift = Point::new(x, y);
            let detected = seen(&at(&coarse, &TEMPLATE), degrees, scale, shift);
            let to_template = Similarity::between(&detected, &TEMPLATE).unwrap();
            let found = refined(to_template, &TEMPLATE, &offsets).unwrap();
            let upright = found.map(|point| to_template.apply(point));
            let expected = at(&offsets, &TEMPLATE);
            prop_assert!(near(&upright, &expected, 0.05), "{:?} {:?}", upright, expected);
            // Turned back by hand, they lie where they would in an upright picture.
            let upright_detected = at(&coarse, &TEMPLATE);
            let plain = Similarity::between(&upright_detected, &TEMPLATE).unwrap();
            let plain = refined(plain, &TEMPLATE, &offsets).unwrap();
            let turned = seen(&plain, degrees, scale, shift);
            prop_assert!(near(&found, &turned, 0.05 * scale.max(1.0)), "{:?} {:?}", found, turned);
        }
    }
}
