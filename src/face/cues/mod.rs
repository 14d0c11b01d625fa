//! Cheap cues about presentation attacks that stand beside the trained detectors.
//!
//! [`moire`] looks for the pixel grid of a screen or the raster of a print on the face, and
//! [`surround`] for the border of a phone, a tablet or a sheet around it; each answers a score from
//! 0 to 1, the greater the better, or `None` where it cannot judge. [`motion`] compares frames.
//! They were chosen so that they nearly never refuse a bona fide picture; what they find, what they
//! do not and what it costs is in docs/design/0005-attack-cues.md.

pub mod lines;
pub mod moire;
pub mod motion;
pub mod spectrum;
pub mod surround;

/// A run of whole pixels along one axis of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The first pixel.
    pub start: usize,
    /// Pixels, at least 1.
    pub length: usize,
}

impl Span {
    /// What lies between `near` and `far` of a picture of `extent` pixels; `None` when that is
    /// nothing or either is not a number.
    pub fn covered(near: f32, far: f32, extent: u32) -> Option<Self> {
        let (start, end) = (near.max(0.0).ceil(), far.min(extent as f32).floor());
        if !(near < far && start < end) {
            return None;
        }
        Some(Self { start: start as usize, length: (end - start) as usize })
    }
}

/// A score at least this high passes: each cue puts its own limit here.
pub const SCORE_MIN: f32 = 0.5;

#[cfg(test)]
pub mod drawn {
    //! Pictures and faces for the tests of the cues.

    use crate::face::detection::Detection;
    use crate::face::geometry::Point;
    use crate::face::geometry::Rect;
    use crate::face::image::Image;

    /// A picture by the colour at each place.
    #[allow(clippy::missing_panics_doc, reason = "it cannot fail, and only tests draw")]
    pub fn picture(width: u32, height: u32, colour: impl Fn(f32, f32) -> [f32; 3]) -> Image {
        let pixel = |at: u32| {
            let rgb = colour((at % width) as f32, (at / width) as f32);
            rgb.map(|value| value.round().clamp(0.0, 255.0) as u8)
        };
        Image::from_rgb(width, height, (0..width * height).flat_map(pixel).collect()).unwrap()
    }

    /// Uniform on -1..1, the same for the same place and seed.
    pub fn noise(x: f32, y: f32, seed: u32) -> f32 {
        let mut bits = (x as i32 as u32).wrapping_mul(0x9E37_79B1);
        bits ^= (y as i32 as u32).wrapping_mul(0x85EB_CA77) ^ seed.wrapping_mul(0xC2B2_AE3D);
        for _ in 0..2 {
            bits = (bits ^ (bits >> 15)).wrapping_mul(0x2C1B_3C6D);
        }
        (bits >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A face whose landmarks lie in their usual places of the box.
    pub fn face(x: f32, y: f32, width: f32, height: f32) -> Detection {
        let place = |across: f32, down: f32| Point::new(x + across * width, y + down * height);
        Detection {
            bounds: Rect { x, y, width, height },
            landmarks: [
                place(0.3, 0.4),
                place(0.7, 0.4),
                place(0.5, 0.6),
                place(0.35, 0.78),
                place(0.65, 0.78),
            ],
            confidence: 0.9,
        }
    }

    /// Something with the spectrum of a head: an ellipse of skin with eyes and mouth on a ground
    /// with coarse and fine variation.
    pub fn head(bounds: Rect, x: f32, y: f32) -> f32 {
        let centre = bounds.centre();
        let across = (x - centre.x) / (0.5 * bounds.width);
        let down = (y - centre.y) / (0.55 * bounds.height);
        let spot = |at: (f32, f32), size: f32| {
            (-((across - at.0).powi(2) + (down - at.1).powi(2)) / (size * size)).exp()
        };
        let mut value = 90.0 + 20.0 * (x / 61.0).sin() + 15.0 * (y / 47.0).cos();
        if across.hypot(down) < 1.0 {
            value = 170.0 - 30.0 * across * across - 20.0 * down;
            for dark in [(-0.4, -0.2), (0.4, -0.2), (0.0, 0.5)] {
                value -= 90.0 * spot(dark, 0.18);
            }
        }
        value + 4.0 * noise(x, y, 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::face::image::Image;

    #[test]
    fn a_span_lies_inside_the_picture() {
        let span = |start, length| Some(Span { start, length });
        for (near, far, expected) in [
            (2.5, 7.5, span(3, 4)),
            (-5.0, 4.0, span(0, 4)),
            (8.0, 99.0, span(8, 2)),
            (-9.0, -1.0, None),
            (12.0, 20.0, None),
            (3.2, 3.8, None),
            (f32::NAN, 5.0, None),
            (5.0, f32::NAN, None),
            (f32::NEG_INFINITY, f32::INFINITY, span(0, 10)),
        ] {
            assert_eq!(Span::covered(near, far, 10), expected, "{near} {far}");
        }
    }

    fn any_number() -> impl Strategy<Value = f32> {
        prop_oneof![
            6 => -300.0f32..600.0,
            1 => -1e30f32..1e30,
            1 => Just(f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NEG_INFINITY),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_picture_and_any_box_give_a_score_or_none(
            size in prop_oneof![
                4 => (1u32..400, 1u32..400),
                1 => Just((1, 1)),
                1 => Just((10_000, 1)),
                1 => Just((1, 10_000)),
                1 => Just((10_000, 70)),
            ],
            x in any_number(), y in any_number(), width in any_number(), height in any_number(),
            level in any::<u8>(), seed in any::<u32>(),
        ) {
            let value = |at: u32| {
                let grain = drawn::noise((at % 997) as f32, (at / 997) as f32, seed);
                level.wrapping_add((grain * 20.0) as i8 as u8)
            };
            let values = (0..size.0 * size.1 * 3).map(value).collect();
            let image = Image::from_rgb(size.0, size.1, values).unwrap();
            let face = drawn::face(x, y, width, height);
            for score in [moire::moire(&image, &face), surround::surround(&image, &face)] {
                prop_assert!(score.is_none_or(|score| (0.0..=1.0).contains(&score)), "{:?}", score);
            }
            if let Some(seen) = motion::Signature::of(&image, &face) {
                prop_assert_eq!(motion::difference(&seen, &seen.clone()), 0.0);
            }
        }
    }
}
