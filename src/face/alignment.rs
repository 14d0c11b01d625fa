//! The aligned face: the picture, moved so that the five landmarks lie where the embedding network
//! learned to expect them.
//!
//! The transform is the similarity (rotation, scale, shift; never a mirror image) with the least
//! squared error over the five points, as Umeyama derives it; in two dimensions it has the closed
//! form below and needs no singular value decomposition.

use crate::face::geometry::Point;
use crate::face::image::Image;
use crate::face::planes::{PlaneMap, Planes};

/// A similarity transform: (x, y) becomes (a·x − b·y + shift.x, b·x + a·y + shift.y).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    a: f32,
    b: f32,
    shift: Point,
}

impl Similarity {
    /// The transform that takes `from` nearest to `to`. `None` when the points of `from` coincide
    /// or any number is not finite.
    pub fn between(from: &[Point; 5], to: &[Point; 5]) -> Option<Self> {
        let (from_mean, to_mean) = (mean(from), mean(to));
        let (mut along, mut across, mut spread) = (0.0f64, 0.0f64, 0.0f64);
        for (source, target) in from.iter().zip(to) {
            let [sx, sy] = [f64::from(source.x) - from_mean[0], f64::from(source.y) - from_mean[1]];
            let [tx, ty] = [f64::from(target.x) - to_mean[0], f64::from(target.y) - to_mean[1]];
            along += sx * tx + sy * ty;
            across += sx * ty - sy * tx;
            spread += sx * sx + sy * sy;
        }
        let (a, b) = (along / spread, across / spread);
        let shift = Point::new(
            (to_mean[0] - a * from_mean[0] + b * from_mean[1]) as f32,
            (to_mean[1] - b * from_mean[0] - a * from_mean[1]) as f32,
        );
        let found = Self { a: a as f32, b: b as f32, shift };
        let usable = found.scale() > 0.0
            && found.scale().is_finite()
            && shift.x.is_finite()
            && shift.y.is_finite();
        usable.then_some(found)
    }

    /// Where a point goes.
    pub fn apply(self, point: Point) -> Point {
        Point::new(
            self.a * point.x - self.b * point.y + self.shift.x,
            self.b * point.x + self.a * point.y + self.shift.y,
        )
    }

    /// The transform back.
    #[must_use]
    pub fn inverse(self) -> Self {
        let determinant = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / determinant, -self.b / determinant);
        let shift = Point::new(
            -(a * self.shift.x - b * self.shift.y),
            -(b * self.shift.x + a * self.shift.y),
        );
        Self { a, b, shift }
    }

    /// Target pixels per source pixel.
    pub fn scale(self) -> f32 {
        self.a.hypot(self.b)
    }

    /// Rotation in degrees, clockwise on the screen.
    pub fn rotation_deg(self) -> f32 {
        self.b.atan2(self.a).to_degrees()
    }
}

fn mean(points: &[Point; 5]) -> [f64; 2] {
    let sum = |coordinate: fn(&Point) -> f32| {
        points.iter().map(|point| f64::from(coordinate(point))).sum::<f64>() / 5.0
    };
    [sum(|point| point.x), sum(|point| point.y)]
}

/// Most samples along each axis of one target pixel.
const SAMPLES_PER_AXIS_MAX: usize = 8;

/// Fills the planes with the picture as `to_planes` moves it: bilinear, black outside the picture.
///
/// A face that is much larger than the planes is averaged: at `n` picture pixels for a plane
/// pixel, rounded, `n` by `n` samples make one. Single samples would throw the other pixels away
/// and keep the sensor's noise: on photographs of faces 300 px wide with noise of 24 grey levels,
/// the mean cosine of one person's pictures rose from .75 to .80, and stayed equal without noise.
/// Below 1.5 it is plain bilinear sampling, which the networks were measured with.
pub fn warp_into(image: &Image, to_planes: Similarity, map: &PlaneMap, planes: &mut Planes<'_>) {
    let back = to_planes.inverse();
    let samples = (back.scale().round() as usize).clamp(1, SAMPLES_PER_AXIS_MAX);
    let offsets: Vec<f32> = (0..samples).map(|i| (i as f32 + 0.5) / samples as f32 - 0.5).collect();
    let share = 1.0 / (samples * samples) as f32;
    let plane = planes.width * planes.height;
    for y in 0..planes.height {
        for x in 0..planes.width {
            let mut rgb = [0.0; 3];
            for dy in &offsets {
                for dx in &offsets {
                    let at = Point::new(x as f32 + dx, y as f32 + dy);
                    add_sample(image, back.apply(at), share, &mut rgb);
                }
            }
            let at = y * planes.width + x;
            for p in 0..3 {
                planes.values[p * plane + at] = map.value(p, rgb);
            }
        }
    }
}

/// Adds the colour at a point between pixels, times `share`; outside the picture it is black.
pub fn add_sample(image: &Image, at: Point, share: f32, rgb: &mut [f32; 3]) {
    let (width, height) = (image.width() as f32, image.height() as f32);
    // Four pixels that are there, as nearly always: without a bound for each, and without `floor`,
    // which is a function of the C library where the processor's oldest kin has no instruction.
    if at.x >= 0.0 && at.y >= 0.0 && at.x < width - 1.0 && at.y < height - 1.0 {
        let (left, top) = (at.x as usize, at.y as usize);
        let (right_share, lower_share) = (at.x - left as f32, at.y - top as f32);
        let stride = image.width() as usize * 3;
        let rows = &image.pixels()[top * stride + left * 3..];
        if let (Some(upper), Some(lower)) =
            (rows.first_chunk::<6>(), rows.get(stride..).and_then(<[u8]>::first_chunk::<6>))
        {
            let weights = [
                share * ((1.0 - right_share) * (1.0 - lower_share)),
                share * (right_share * (1.0 - lower_share)),
                share * ((1.0 - right_share) * lower_share),
                share * (right_share * lower_share),
            ];
            for (channel, sum) in rgb.iter_mut().enumerate() {
                *sum += weights[0] * f32::from(upper[channel]);
                *sum += weights[1] * f32::from(upper[channel + 3]);
                *sum += weights[2] * f32::from(lower[channel]);
                *sum += weights[3] * f32::from(lower[channel + 3]);
            }
            return;
        }
    }
    add_sample_near_edge(image, at, share, rgb);
}

/// As [`add_sample`], where some of the four pixels may lie outside.
fn add_sample_near_edge(image: &Image, at: Point, share: f32, rgb: &mut [f32; 3]) {
    let (width, height) = (image.width() as f32, image.height() as f32);
    let (left, top) = (at.x.floor(), at.y.floor());
    if !(left >= -1.0 && top >= -1.0 && left < width && top < height) {
        return;
    }
    let (right_share, lower_share) = (at.x - left, at.y - top);
    let upper = [(1.0 - right_share) * (1.0 - lower_share), right_share * (1.0 - lower_share)];
    let lower = [(1.0 - right_share) * lower_share, right_share * lower_share];
    let (left, top) = (left as i32, top as i32);
    for (y, weights) in [(top, upper), (top + 1, lower)] {
        for (x, weight) in [(left, weights[0]), (left + 1, weights[1])] {
            if (0..image.width() as i32).contains(&x) && (0..image.height() as i32).contains(&y) {
                let pixel = image.pixel(x as u32, y as u32);
                for (sum, value) in rgb.iter_mut().zip(pixel) {
                    *sum += share * weight * f32::from(value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEMPLATE: [Point; 5] = [
        Point::new(38.2946, 51.6963),
        Point::new(73.5318, 51.5014),
        Point::new(56.0252, 71.7366),
        Point::new(41.5493, 92.3655),
        Point::new(70.7299, 92.2041),
    ];
    /// A tilted face in a picture of 160x120.
    const TILTED: [Point; 5] = [
        Point::new(52.0, 40.0),
        Point::new(83.0, 48.5),
        Point::new(63.0, 63.0),
        Point::new(45.5, 72.0),
        Point::new(73.0, 80.5),
    ];

    /// Red grows to the right, green downwards, blue with both.
    fn gradient(width: u32, height: u32) -> Image {
        let pixel = |at: u32| {
            let (x, y) = (at % width, at / width);
            [x as u8, 2 * y as u8, (x * y / 80) as u8]
        };
        Image::from_rgb(width, height, (0..width * height).flat_map(pixel).collect()).unwrap()
    }

    fn aligned(image: &Image, transform: Similarity, side: usize) -> Vec<f32> {
        let mut values = vec![f32::NAN; 3 * side * side];
        let mut planes = Planes { width: side, height: side, values: &mut values };
        warp_into(image, transform, &PlaneMap::rgb([0.0; 3], [1.0; 3]), &mut planes);
        values
    }

    #[test]
    fn the_transform_is_umeyamas() {
        // The matrix that `tests/golden/record.py` computes with a singular value decomposition.
        let found = Similarity::between(&TILTED, &TEMPLATE).unwrap();
        for (found, expected) in [
            (found.a, 1.10666),
            (found.b, -0.30647),
            (found.shift.x, -32.65881),
            (found.shift.y, 24.01522),
        ] {
            assert!(
                (found - expected).abs() < 2e-5 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn pixels_are_those_of_opencv() {
        // cv2.warpAffine of the same picture in floats; its coordinates are rounded to 1/32 px.
        let transform = Similarity::between(&TILTED, &TEMPLATE).unwrap();
        let planes = aligned(&gradient(160, 120), transform, 112);
        for ((x, y), expected) in [
            ((56, 56), [66.97, 94.90, 39.42]),
            ((38, 52), [52.80, 79.82, 25.91]),
            ((100, 30), [109.94, 71.71, 48.85]),
            ((3, 3), [0.0, 0.0, 0.0]),
            ((0, 56), [19.98, 68.87, 8.0]),
            ((60, 111), [57.55, 189.08, 67.34]),
        ] {
            for (plane, expected) in expected.into_iter().enumerate() {
                let found = planes[plane * 112 * 112 + y * 112 + x];
                assert!((found - expected).abs() < 0.15, "{x},{y}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn what_lies_outside_the_picture_is_black_before_normalisation() {
        let image = Image::from_rgb(2, 2, vec![200; 12]).unwrap();
        let there = Similarity { a: 1.0, b: 0.0, shift: Point::new(1.5, 0.0) };
        let mut values = vec![f32::NAN; 3 * 16];
        let mut planes = Planes { width: 4, height: 4, values: &mut values };
        warp_into(&image, there, &PlaneMap::rgb([100.0; 3], [50.0; 3]), &mut planes);
        // Columns at source -1.5, -0.5, 0.5 and 1.5; row 2 lies below the picture.
        assert_eq!(values[..4], [-2.0, 0.0, 2.0, 0.0]);
        assert_eq!(values[8..12], [-2.0; 4]);
    }

    #[test]
    fn a_large_face_is_averaged() {
        // A chequerboard of single pixels is grey from afar, not black or white.
        let pixel = |at: u32| [if (at % 64 + at / 64).is_multiple_of(2) { 255 } else { 0 }; 3];
        let board = Image::from_rgb(64, 64, (0..64 * 64).flat_map(pixel).collect()).unwrap();
        let smaller = Similarity { a: 0.25, b: 0.0, shift: Point::new(0.0, 0.0) };
        let planes = aligned(&board, smaller, 12);
        let inner = planes[..144].chunks(12).skip(1).flat_map(|row| &row[1..]);
        for value in inner {
            assert!((value - 127.5).abs() < 1.0, "{value}");
        }
    }

    #[test]
    fn points_without_extent_have_no_transform() {
        assert_eq!(Similarity::between(&[Point::new(3.0, 4.0); 5], &TEMPLATE), None);
        let mut broken = TILTED;
        broken[4].y = f32::NAN;
        assert_eq!(Similarity::between(&broken, &TEMPLATE), None);
        broken[4].y = f32::INFINITY;
        assert_eq!(Similarity::between(&broken, &TEMPLATE), None);
    }

    #[test]
    fn a_far_away_face_costs_no_more_than_black() {
        let far = Similarity { a: 1.0, b: 0.0, shift: Point::new(1e30, -1e30) };
        assert!(aligned(&gradient(8, 8), far, 8).iter().all(|value| *value == 0.0));
    }

    proptest! {
        #[test]
        fn a_known_rotation_scale_and_shift_is_recovered(
            degrees in -180.0f32..180.0,
            scale in 0.05f32..20.0,
            x in -2000.0f32..2000.0,
            y in -2000.0f32..2000.0,
        ) {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let known = Similarity { a: scale * cos, b: scale * sin, shift: Point::new(x, y) };
            let moved = TEMPLATE.map(|point| known.apply(point));
            let back = Similarity::between(&moved, &TEMPLATE).unwrap();
            prop_assert!((back.scale() * scale - 1.0).abs() < 1e-3);
            for (moved, expected) in moved.iter().zip(TEMPLATE) {
                let found = back.apply(*moved);
                prop_assert!(found.distance(expected) < 0.02, "{:?} {:?}", found, expected);
            }
            let turn = (back.rotation_deg() + degrees).rem_euclid(360.0);
            prop_assert!(!(0.1..=359.9).contains(&turn), "{}", turn);
            let there = back.inverse().apply(TEMPLATE[0]);
            prop_assert!(there.distance(moved[0]) < 0.02 * scale.max(1.0));
        }

        #[test]
        fn no_other_similarity_fits_better(
            noise in prop::collection::vec(-6.0f32..6.0, 10),
            da in -0.02f32..0.02, db in -0.02f32..0.02, dx in -1.0f32..1.0, dy in -1.0f32..1.0,
        ) {
            let noisy: [Point; 5] = std::array::from_fn(|i| {
                Point::new(TILTED[i].x + noise[2 * i], TILTED[i].y + noise[2 * i + 1])
            });
            let best = Similarity::between(&noisy, &TEMPLATE).unwrap();
            let other = Similarity {
                a: best.a + da,
                b: best.b + db,
                shift: Point::new(best.shift.x + dx, best.shift.y + dy),
            };
            let error = |transform: Similarity| -> f32 {
                let pairs = noisy.iter().zip(TEMPLATE);
                pairs.map(|(from, to)| transform.apply(*from).distance(to).powi(2)).sum()
            };
            prop_assert!(error(best) <= error(other) + 1e-2);
        }
    }

    proptest! {
        /// The short way for points between four pixels that are there gives the long one's bits.
        #[test]
        fn the_short_way_is_the_long_one(
            (width, height) in (1u32..5, 1u32..5),
            (x, y) in (-1.5f32..5.5, -1.5f32..5.5),
            edge in 0usize..6,
            share in 0.01f32..1.0,
            seed in any::<u8>(),
        ) {
            let pixels: Vec<u8> =
                (0..width * height * 3).map(|at| (at as u8).wrapping_mul(89) ^ seed).collect();
            let image = Image::from_rgb(width, height, pixels).unwrap();
            let last = width as f32 - 1.0;
            let x = [x, 0.0, -0.0, last, last.next_down(), f32::NAN][edge];
            let (mut short, mut long) = ([0.5; 3], [0.5; 3]);
            add_sample(&image, Point::new(x, y), share, &mut short);
            add_sample_near_edge(&image, Point::new(x, y), share, &mut long);
            prop_assert_eq!(short.map(f32::to_bits), long.map(f32::to_bits));
        }
    }
}
