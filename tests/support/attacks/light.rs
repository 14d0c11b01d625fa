//! Pictures in linear light: what lenses, papers and screens add up and mix is light, not the
//! gamma-coded numbers of a file.

use facelatch::face::image::Image;

use crate::attacks::draw::floor;

/// Red, green and blue light; 1 is what a file's 255 stands for, more is allowed.
pub type Rgb = [f32; 3];

/// A picture in linear light, rows from top to bottom.
#[derive(Clone)]
pub struct Light {
    /// Columns, at least 1.
    pub width: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// `width * height` colours.
    pub values: Vec<Rgb>,
}

impl Light {
    /// Decodes the sRGB transfer curve.
    pub fn from_image(image: &Image) -> Self {
        let table: [f32; 256] = std::array::from_fn(|value| linear(value as f32 / 255.0));
        let values =
            image.pixels().chunks_exact(3).map(|p| [0, 1, 2].map(|c| table[p[c] as usize]));
        Self {
            width: image.width() as usize,
            height: image.height() as usize,
            values: values.collect(),
        }
    }

    /// The nearest pixel of a place inside or outside.
    fn nearest(&self, x: i32, y: i32) -> Rgb {
        let x = x.clamp(0, self.width as i32 - 1) as usize;
        let y = y.clamp(0, self.height as i32 - 1) as usize;
        self.values[y * self.width + x]
    }

    /// Bicubic (Catmull-Rom) between pixels; pixel centres at integers, edges repeated.
    pub fn smooth(&self, x: f32, y: f32) -> Rgb {
        let (left, top) = (floor(x), floor(y));
        let (across, down) = (cubic(x - left as f32), cubic(y - top as f32));
        let (left, top) = (left - 1, top - 1);
        let mut sum = [0.0f32; 3];
        let inside =
            left >= 0 && top >= 0 && left + 4 <= self.width as i32 && top + 4 <= self.height as i32;
        if inside {
            for (row, wy) in (top as usize..).zip(down) {
                let colours = &self.values[row * self.width + left as usize..][..4];
                for (colour, wx) in colours.iter().zip(across) {
                    for (sum, value) in sum.iter_mut().zip(colour) {
                        *sum += wx * wy * value;
                    }
                }
            }
            return sum.map(|value| value.max(0.0));
        }
        for (dy, wy) in (0..).zip(down) {
            for (dx, wx) in (0..).zip(across) {
                let colour = self.nearest(left + dx, top + dy);
                for (sum, value) in sum.iter_mut().zip(colour) {
                    *sum += wx * wy * value;
                }
            }
        }
        sum.map(|value| value.max(0.0))
    }

    /// Straight between pixels: for what is out of focus anyway.
    pub fn coarse(&self, x: f32, y: f32) -> Rgb {
        let (left, top) = (floor(x), floor(y));
        let (dx, dy) = (x - left as f32, y - top as f32);
        let row = |y: i32| blend(self.nearest(left, y), self.nearest(left + 1, y), dx);
        blend(row(top), row(top + 1), dy)
    }

    /// The mean of blocks of pixels, so many that at most `side_max` remain on the longer side.
    pub fn reduced(&self, side_max: usize) -> Self {
        let block = self.width.max(self.height).div_ceil(side_max.max(1)).max(1);
        let (width, height) = (self.width.div_ceil(block), self.height.div_ceil(block));
        let mean = |column: usize, row: usize| {
            let rows = row * block..((row + 1) * block).min(self.height);
            let columns = column * block..((column + 1) * block).min(self.width);
            let count = (rows.len() * columns.len()) as f32;
            let colours =
                rows.flat_map(|y| columns.clone().map(move |x| self.values[y * self.width + x]));
            colours.fold([0.0; 3], plus).map(|sum: f32| sum / count)
        };
        let values = (0..height).flat_map(|row| (0..width).map(move |column| (column, row)));
        Self { width, height, values: values.map(|(column, row)| mean(column, row)).collect() }
    }
}

/// Weights of the four pixels around a place, `t` behind the second.
fn cubic(t: f32) -> [f32; 4] {
    let (square, cube) = (t * t, t * t * t);
    [
        -0.5 * cube + square - 0.5 * t,
        1.5 * cube - 2.5 * square + 1.0,
        -1.5 * cube + 2.0 * square + 0.5 * t,
        0.5 * cube - 0.5 * square,
    ]
}

/// Sum of two colours.
pub fn plus(a: Rgb, b: Rgb) -> Rgb {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// Product of two colours: light of one through a filter or off a paint of the other.
pub fn times(a: Rgb, b: Rgb) -> Rgb {
    [a[0] * b[0], a[1] * b[1], a[2] * b[2]]
}

/// From colour `a` to `b` as `t` goes from 0 to 1.
pub fn blend(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [0, 1, 2].map(|c| a[c] + (b[c] - a[c]) * t)
}

/// Luminance by the weights of sRGB (BT.709).
pub fn luminance([red, green, blue]: Rgb) -> f32 {
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// The sRGB curve from a coded value, 0 to 1, to light.
pub fn linear(coded: f32) -> f32 {
    if coded <= 0.04045 { coded / 12.92 } else { ((coded + 0.055) / 1.055).powf(2.4) }
}

/// The sRGB curve from light, 0 to 1, to a coded value.
pub fn coded(light: f32) -> f32 {
    if light <= 0.003_130_8 { light * 12.92 } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 }
}

/// A curve from light, 0 to 1, to light, in a table that is dense in the dark.
#[derive(Clone, Debug)]
pub struct Curve(Vec<f32>);

/// Steps of a [`Curve`].
const CURVE_STEPS: f32 = 2047.0;

impl Curve {
    /// The table of a function.
    pub fn new(function: impl Fn(f32) -> f32) -> Self {
        Self((0..=CURVE_STEPS as u32).map(|i| function((i as f32 / CURVE_STEPS).powi(2))).collect())
    }

    /// The function of a colour's parts, each cut to 0 to 1.
    pub fn of(&self, colour: Rgb) -> Rgb {
        colour.map(|value| self.0[(value.clamp(0.0, 1.0).sqrt() * CURVE_STEPS + 0.5) as usize])
    }
}

/// The colour of white light of a temperature, relative to 6500 K, green at 1.
///
/// Between the columns of a small table computed from Planck's law with the sRGB primaries
/// (approximation of Krystek, 1985); fine enough for lamps and screens.
pub fn white_of(kelvin: f32) -> Rgb {
    const TABLE: [(f32, f32, f32); 8] = [
        (2700.0, 1.80, 0.28),
        (3200.0, 1.60, 0.41),
        (4000.0, 1.37, 0.59),
        (5000.0, 1.18, 0.79),
        (6500.0, 1.00, 1.00),
        (7500.0, 0.93, 1.12),
        (9000.0, 0.87, 1.25),
        (12_000.0, 0.81, 1.40),
    ];
    let kelvin = kelvin.clamp(TABLE[0].0, TABLE[7].0);
    let upper = TABLE.iter().position(|row| row.0 >= kelvin).unwrap_or(7).max(1);
    let (low, high) = (TABLE[upper - 1], TABLE[upper]);
    let t = (kelvin - low.0) / (high.0 - low.0);
    [low.1 + (high.1 - low.1) * t, 1.0, low.2 + (high.2 - low.2) * t]
}
