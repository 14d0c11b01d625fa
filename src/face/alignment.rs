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

/// Fills the planes with the picture as `to_planes` moves it: bilinear, black outside the picture.
pub fn warp_into(image: &Image, to_planes: Similarity, map: &PlaneMap, planes: &mut Planes<'_>) {
    let back = to_planes.inverse();
    let plane = planes.width * planes.height;
    for y in 0..planes.height {
        for x in 0..planes.width {
            let rgb = sample(image, back.apply(Point::new(x as f32, y as f32)));
            let at = y * planes.width + x;
            for p in 0..3 {
                planes.values[p * plane + at] = map.value(p, rgb);
            }
        }
    }
}

/// The colour at a point between pixels; what lies outside the picture counts as black.
fn sample(image: &Image, at: Point) -> [f32; 3] {
    let (left, top) = (at.x.floor(), at.y.floor());
    let inside =
        left >= -1.0 && top >= -1.0 && left < image.width() as f32 && top < image.height() as f32;
    if !inside {
        return [0.0; 3];
    }
    let (right_share, lower_share) = (at.x - left, at.y - top);
    let (left, top) = (left as i64, top as i64);
    let mut rgb = [0.0; 3];
    for (dx, dy, weight) in [
        (0, 0, (1.0 - right_share) * (1.0 - lower_share)),
        (1, 0, right_share * (1.0 - lower_share)),
        (0, 1, (1.0 - right_share) * lower_share),
        (1, 1, right_share * lower_share),
    ] {
        let (x, y) = (left + dx, top + dy);
        let exists = (0..i64::from(image.width())).contains(&x)
            && (0..i64::from(image.height())).contains(&y);
        if exists {
            let pixel = image.pixel(x as u32, y as u32);
            for (sum, value) in rgb.iter_mut().zip(pixel) {
                *sum += weight * f32::from(value);
            }
        }
    }
    rgb
}
