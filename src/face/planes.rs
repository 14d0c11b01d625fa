//! From 8-bit RGB pixels to the planes of a network's input: channel order, normalisation and
//! bilinear resizing.
//!
//! Planes are row-major, one after the other, three to a tensor. Resizing takes the same samples
//! as `cv2.resize` with `INTER_LINEAR` (pixel centres at half coordinates, edges repeated), which
//! the networks' figures were measured with; values stay fractional where `cv2` rounds to 8 bit.
//! Averaging when a picture shrinks did not help the detector: of 147 photographs of up to
//! 2,333 px it found another number of faces in 4, more in 1 of them.

use crate::face::image::Image;

/// How a pixel becomes the three planes: plane `p` holds `pixel[channels[p]] * gain[p] + bias[p]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlaneMap {
    channels: [usize; 3],
    gain: [f32; 3],
    bias: [f32; 3],
}

impl PlaneMap {
    /// Blue, green, red, each 0 to 255: what the detector and the attack detectors want.
    pub const RAW_BGR: Self = Self { channels: [2, 1, 0], gain: [1.0; 3], bias: [0.0; 3] };

    /// Planes in the order red, green, blue, each `(value - mean) / std` on the 0..255 scale;
    /// `std` must not be 0.
    pub fn rgb(mean: [f32; 3], std: [f32; 3]) -> Self {
        Self::normalised([0, 1, 2], mean, std)
    }

    /// As [`PlaneMap::rgb`], in the order blue, green, red; `mean` and `std` follow that order.
    pub fn bgr(mean: [f32; 3], std: [f32; 3]) -> Self {
        Self::normalised([2, 1, 0], mean, std)
    }

    fn normalised(channels: [usize; 3], mean: [f32; 3], std: [f32; 3]) -> Self {
        let gain = std.map(|std| 1.0 / std);
        Self { channels, gain, bias: std::array::from_fn(|plane| -mean[plane] * gain[plane]) }
    }

    /// The value of plane `plane` for a pixel of (possibly fractional) RGB.
    pub fn value(&self, plane: usize, rgb: [f32; 3]) -> f32 {
        rgb[self.channels[plane]] * self.gain[plane] + self.bias[plane]
    }
}

/// A window of whole pixels inside a picture, at least one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

impl Window {
    /// The whole picture.
    pub fn whole(image: &Image) -> Self {
        Self { x: 0, y: 0, width: image.width(), height: image.height() }
    }
}

/// Three planes of equal size, to be written.
pub struct Planes<'a> {
    /// Columns of each plane, at least 1.
    pub width: usize,
    /// Rows of each plane, at least 1.
    pub height: usize,
    /// `3 * width * height` values.
    pub values: &'a mut [f32],
}

/// Resizes a window of a picture to `width` by `height` and writes it to the top left of the
/// planes; the rest of the planes is left alone. `width` and `height` must fit into the planes and
/// the window into the picture.
pub fn resize_into(
    image: &Image,
    window: Window,
    (width, height): (usize, usize),
    map: &PlaneMap,
    planes: &mut Planes<'_>,
) {
    let columns = taps(window.x, window.width, width);
    let rows = taps(window.y, window.height, height);
    let stride = image.width() as usize * 3;
    let plane = planes.width * planes.height;
    let (red, rest) = planes.values.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    let mut targets = [red, green, blue];
    for (y, row) in rows.iter().enumerate() {
        let upper = &image.pixels()[row.first * stride..][..stride];
        let lower = &image.pixels()[row.second * stride..][..stride];
        for (p, target) in targets.iter_mut().enumerate() {
            let target = &mut target[y * planes.width..][..width];
            let (channel, gain, bias) = (map.channels[p], map.gain[p], map.bias[p]);
            for (value, column) in target.iter_mut().zip(&columns) {
                let (left, right) = (column.first * 3 + channel, column.second * 3 + channel);
                let above = mix(upper[left], upper[right], column.weight);
                let below = mix(lower[left], lower[right], column.weight);
                *value = (above + (below - above) * row.weight) * gain + bias;
            }
        }
    }
}

fn mix(first: u8, second: u8, weight: f32) -> f32 {
    let (first, second) = (f32::from(first), f32::from(second));
    first + (second - first) * weight
}

/// Two neighbouring source positions and the share of the second.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: f32,
}

/// Where each of `to` samples lies among `from` pixels that begin at `start`.
fn taps(start: u32, from: u32, to: usize) -> Vec<Tap> {
    let scale = f64::from(from) / to as f64;
    let last = from as usize - 1;
    let tap = |index: usize| {
        let at = ((index as f64 + 0.5) * scale - 0.5).clamp(0.0, last as f64);
        let first = at as usize;
        let second = (first + 1).min(last);
        let start = start as usize;
        Tap { first: start + first, second: start + second, weight: (at - first as f64) as f32 }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(image: &Image, window: Window, width: usize, height: usize) -> Vec<f32> {
        let mut values = vec![-1.0; 3 * width * height];
        let mut planes = Planes { width, height, values: &mut values };
        resize_into(image, window, (width, height), &PlaneMap::RAW_BGR, &mut planes);
        values
    }

    #[test]
    fn the_same_size_is_a_copy_in_plane_order() {
        let image = Image::from_rgb(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let planes = resized(&image, Window::whole(&image), 2, 1);
        assert_eq!(planes, [3.0, 6.0, 2.0, 5.0, 1.0, 4.0]);
    }

    #[test]
    fn samples_lie_where_opencv_puts_them() {
        // cv2.resize of the row 0, 100, 200, 50 to 8 and to 2 columns, INTER_LINEAR, in floats.
        let row: Vec<u8> = [0, 100, 200, 50].iter().flat_map(|v| [*v; 3]).collect();
        let image = Image::from_rgb(4, 1, row).unwrap();
        let wide = resized(&image, Window::whole(&image), 8, 1);
        assert_eq!(wide[..8], [0.0, 25.0, 75.0, 125.0, 175.0, 162.5, 87.5, 50.0]);
        let narrow = resized(&image, Window::whole(&image), 2, 1);
        assert_eq!(narrow[..2], [50.0, 125.0]);
    }

    #[test]
    fn a_window_never_looks_outside_itself() {
        let row: Vec<u8> = [255, 10, 20, 255].iter().flat_map(|v| [*v; 3]).collect();
        let image = Image::from_rgb(4, 1, row).unwrap();
        let inner = Window { x: 1, y: 0, width: 2, height: 1 };
        let values = resized(&image, inner, 4, 1);
        assert_eq!(values[..4], [10.0, 12.5, 17.5, 20.0]);
    }

    #[test]
    fn the_rest_of_the_planes_is_left_alone() {
        let image = Image::from_rgb(1, 1, vec![7; 3]).unwrap();
        let mut values = vec![-1.0; 12];
        let mut planes = Planes { width: 2, height: 2, values: &mut values };
        resize_into(&image, Window::whole(&image), (2, 1), &PlaneMap::RAW_BGR, &mut planes);
        let plane = [7.0, 7.0, -1.0, -1.0];
        assert_eq!(values, [plane, plane, plane].concat());
    }

    #[test]
    fn normalisation_follows_the_plane_order() {
        let map = PlaneMap::bgr([10.0, 20.0, 30.0], [1.0, 2.0, 4.0]);
        let rgb = [50.0, 40.0, 30.0];
        let values: Vec<f32> = (0..3).map(|plane| map.value(plane, rgb)).collect();
        assert_eq!(values, [20.0, 10.0, 5.0]);
    }
}
