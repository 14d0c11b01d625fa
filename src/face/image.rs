//! A picture in memory: packed 8-bit RGB, rows from top to bottom without padding.

use thiserror::Error;

use crate::face::geometry::Rect;

/// Why a buffer is not a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{bytes} bytes cannot hold {width}x{height} RGB pixels, which need {expected}")]
pub struct ImageSizeError {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// What the buffer holds.
    pub bytes: usize,
    /// What it would have to hold.
    pub expected: usize,
}

/// An 8-bit RGB picture. Invariant: `pixels.len() == width * height * 3`, both at least 1.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Image {
    /// Wraps packed RGB rows.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self, ImageSizeError> {
        let expected = width as usize * height as usize * 3;
        if expected == 0 || pixels.len() != expected {
            return Err(ImageSizeError { width, height, bytes: pixels.len(), expected });
        }
        Ok(Self { width, height, pixels })
    }

    /// Columns, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Packed RGB rows, `width * height * 3` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The colour at column `x` and row `y`; both must lie inside.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// The part of the picture under `rect`, cut off at the picture's edges; at least one pixel,
    /// the nearest one when `rect` lies outside.
    #[must_use]
    pub fn crop(&self, rect: Rect) -> Self {
        let (left, right) = covered(rect.x, rect.right(), self.width);
        let (top, bottom) = covered(rect.y, rect.bottom(), self.height);
        let stride = self.width as usize * 3;
        let rows = self.pixels.chunks_exact(stride).take(bottom as usize).skip(top as usize);
        let pixels = rows.flat_map(|row| &row[left as usize * 3..right as usize * 3]).copied();
        Self { width: right - left, height: bottom - top, pixels: pixels.collect() }
    }

    /// The picture with its longest side at most `side_px_max` (at least 1), each new pixel the
    /// mean of what it covers. Never enlarges.
    #[must_use]
    pub fn resized(&self, side_px_max: u32) -> Self {
        let longest = self.width.max(self.height);
        let side = side_px_max.max(1);
        if longest <= side {
            return self.clone();
        }
        let scaled = |extent: u32| {
            let exact = f64::from(extent) * f64::from(side) / f64::from(longest);
            (exact.round() as u32).max(1)
        };
        self.averaged(scaled(self.width), scaled(self.height))
    }

    fn averaged(&self, width: u32, height: u32) -> Self {
        let columns = spans(self.width, width);
        let stride = self.width as usize * 3;
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
        let mut sums = vec![0.0f32; width as usize * 3];
        for row in spans(self.height, height) {
            sums.fill(0.0);
            for (y, row_share) in row.shares() {
                let source = &self.pixels[y * stride..][..stride];
                for (sum, column) in sums.chunks_exact_mut(3).zip(&columns) {
                    for (x, share) in column.shares() {
                        for (channel, sum) in sum.iter_mut().enumerate() {
                            *sum += row_share * share * f32::from(source[x * 3 + channel]);
                        }
                    }
                }
            }
            pixels.extend(sums.iter().map(|sum| sum.round() as u8));
        }
        Self { width, height, pixels }
    }
}

/// First and one past the last pixel of `0..extent` that `near..far` touches, at least one pixel.
fn covered(near: f32, far: f32, extent: u32) -> (u32, u32) {
    let first = (near.floor().max(0.0) as u32).min(extent - 1);
    let end = (far.ceil().max(0.0) as u32).clamp(first + 1, extent);
    (first, end)
}

/// A run of source pixels that one target pixel covers, the outer ones in part.
struct Span {
    near: f64,
    far: f64,
}

impl Span {
    /// Source positions with their share of the mean; the shares add up to 1.
    fn shares(&self) -> impl Iterator<Item = (usize, f32)> {
        let (near, far) = (self.near, self.far);
        let share = move |position: usize| {
            let position = position as f64;
            let overlap = (position + 1.0).min(far) - position.max(near);
            (overlap / (far - near)) as f32
        };
        (near as usize..far.ceil() as usize).map(move |position| (position, share(position)))
    }
}

fn spans(from: u32, to: u32) -> Vec<Span> {
    let edge = |index: u32| f64::from(index) * f64::from(from) / f64::from(to);
    (0..to).map(|index| Span { near: edge(index), far: edge(index + 1) }).collect()
}

impl std::fmt::Debug for Image {
    /// Never the pixels: a picture of a person does not belong in a log.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Image({}x{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_of_the_wrong_size_is_refused() {
        assert!(Image::from_rgb(2, 2, vec![0; 12]).is_ok());
        assert!(Image::from_rgb(2, 2, vec![0; 11]).is_err());
        assert!(Image::from_rgb(0, 2, vec![]).is_err());
    }

    #[test]
    fn pixels_are_addressed_by_column_and_row() {
        let image = Image::from_rgb(2, 2, (0..12).collect()).unwrap();
        assert_eq!(image.pixel(1, 0), [3, 4, 5]);
        assert_eq!(image.pixel(0, 1), [6, 7, 8]);
        assert_eq!(format!("{image:?}"), "Image(2x2)");
    }

    const fn rect(x: f32, y: f32, width: f32, height: f32) -> Rect {
        Rect { x, y, width, height }
    }

    #[test]
    fn a_crop_is_cut_off_at_the_edges() {
        let image = Image::from_rgb(4, 3, (0..36).collect()).unwrap();
        let middle = image.crop(rect(1.2, 0.9, 1.0, 1.0));
        assert_eq!((middle.width(), middle.height()), (2, 2));
        assert_eq!(middle.pixel(0, 0), image.pixel(1, 0));
        assert_eq!(middle.pixel(1, 1), image.pixel(2, 1));
        assert_eq!(image.crop(rect(-9.0, -9.0, 99.0, 99.0)), image);
        for (outside, nearest) in [
            (rect(-9.0, -9.0, 2.0, 2.0), (0, 0)),
            (rect(90.0, 90.0, 2.0, 2.0), (3, 2)),
            (rect(1.0, 1.0, 0.0, -3.0), (1, 1)),
            (rect(f32::NAN, 1.0, f32::NAN, 1.0), (0, 1)),
        ] {
            let pixel = image.crop(outside);
            assert_eq!((pixel.width(), pixel.height()), (1, 1), "{outside:?}");
            assert_eq!(pixel.pixel(0, 0), image.pixel(nearest.0, nearest.1), "{outside:?}");
        }
    }

    #[test]
    fn a_smaller_picture_is_the_mean_of_what_it_covers() {
        let row: Vec<u8> = [0, 90, 30, 60, 120, 240].iter().flat_map(|v| [*v; 3]).collect();
        let image = Image::from_rgb(6, 1, row).unwrap();
        let third = image.resized(2);
        assert_eq!((third.width(), third.height()), (2, 1));
        assert_eq!([third.pixel(0, 0)[0], third.pixel(1, 0)[0]], [40, 140]);
        // Four of six: each covers one and a half.
        let four = image.resized(4);
        let values: Vec<u8> = (0..4).map(|x| four.pixel(x, 0)[0]).collect();
        assert_eq!(values, [30, 50, 80, 200]);
    }

    #[test]
    fn resizing_never_enlarges_and_keeps_the_proportions() {
        let image = Image::from_rgb(40, 30, vec![128; 3600]).unwrap();
        assert_eq!(image.resized(40), image);
        assert_eq!(image.resized(4000), image);
        for (side, width, height) in [(20, 20, 15), (7, 7, 5), (1, 1, 1), (0, 1, 1)] {
            let small = image.resized(side);
            assert_eq!((small.width(), small.height()), (width, height), "{side}");
            assert!(small.pixels().iter().all(|value| *value == 128), "{side}");
        }
        let line = Image::from_rgb(1000, 1, vec![7; 3000]).unwrap();
        assert_eq!(line.resized(10).height(), 1);
    }
}
