//! The pixel grid of a screen or the raster of a print: narrow peaks in the spectrum of the face.
//!
//! Skin, hair and cloth spread their energy over the spectrum; whatever is built of equal cells
//! gathers it in single frequencies, however sharp the picture is. So it is not the energy that
//! counts, but how far a peak stands out of its own neighbourhood. A grid lies over the whole face
//! and texture over a part of it, so the spectra of up to four windows are averaged first: what
//! they share stays, what one of them shows shrinks.
//!
//! Frequencies are in cycles per picture pixel; at a window of `side` pixels a bin is 1/`side`.

use std::f32::consts::TAU;

use crate::face::cues::Span;
use crate::face::cues::spectrum::Complex;
use crate::face::cues::spectrum::Plan;
use crate::face::detection::Detection;
use crate::face::geometry::Rect;
use crate::face::image::Image;

/// Shares of the face box that are left out at each side, above and below: knitted hats and
/// collars reach into it, and they are regular.
const BORDER_SHARES: [f32; 3] = [0.05, 0.15, 0.15];
/// Side of the windows on a face that is not large enough for [`LARGE_SIDE`].
const SMALL_SIDE: usize = 64;
/// Side of the windows: 128 bins separate the frequencies of a grid from those of texture.
const LARGE_SIDE: usize = 128;
/// A second window along an axis where it would show at least this share of new pixels.
const NEW_SHARE_MIN: f32 = 0.25;
/// Peaks with a longer period than this many pixels are features of the face.
const PERIOD_PX_MAX: f32 = 16.0;
/// Colour peaks above this frequency are what a JPEG decoder leaves of halved chroma.
const COLOUR_FREQUENCY_MAX: f32 = 0.22;
/// Period of JPEG's blocks in pixels: in luma, and in chroma that was halved.
const BLOCK_PX: [f32; 2] = [8.0, 16.0];
/// Bins around each multiple of the block frequency where block edges put their energy: the main
/// lobe of the Hann window.
const BLOCK_BINS: f32 = 1.6;
/// The ring that a peak is compared with: outside the peak's own lobe, which ends at two bins.
const RING_BINS: [i32; 2] = [3, 7];
/// Share of the ring that must lie below the peak. A streak of the spectrum, which an edge in the
/// picture makes, crosses the ring twice and covers a twelfth of it, so it is its own background.
const RING_QUANTILE: f32 = 0.95;
/// Nepers above its ring at which the score of a peak is 0.5. Of 5,354 portraits of Labeled Faces
/// in the Wild 7 reach it, and 2 of those are photographs of a television (design note 0005).
const PROMINENCE_AT_LIMIT: f32 = 1.8;

/// How free the face is of regular grids: 1 without a peak, 0.5 where one begins to stand out
/// more than in any genuine portrait, 0 for a plain grid. `None` when less than 64 pixels
/// of it can be looked at each way, which a box of 72 by 92 pixels holds.
pub fn moire(image: &Image, face: &Detection) -> Option<f32> {
    let prominence = prominence(image, face)?;
    Some((1.0 - 0.5 * prominence / PROMINENCE_AT_LIMIT).clamp(0.0, 1.0))
}

/// Height of the most prominent peak over its surroundings in the natural logarithm of power; 0
/// when there is none.
pub fn prominence(image: &Image, face: &Detection) -> Option<f32> {
    let skin = skin(face.bounds);
    let columns = Span::covered(skin.x, skin.right(), image.width())?;
    let rows = Span::covered(skin.y, skin.bottom(), image.height())?;
    let side = match columns.length.min(rows.length) {
        LARGE_SIDE.. => LARGE_SIDE,
        SMALL_SIDE.. => SMALL_SIDE,
        _ => return None,
    };
    let mut spectra = Spectra::new(side);
    for &top in &window_starts(rows, side) {
        for &left in &window_starts(columns, side) {
            spectra.add(image, left, top);
        }
    }
    let [luma, colour] = &spectra.power;
    let colour_peak = if side == LARGE_SIDE { COLOUR.highest(colour, side) } else { 0.0 };
    Some(LUMA.highest(luma, side).max(colour_peak))
}

/// The part of a face box that is looked at.
fn skin(bounds: Rect) -> Rect {
    let [aside, above, below] = BORDER_SHARES;
    Rect {
        x: bounds.x + aside * bounds.width,
        y: bounds.y + above * bounds.height,
        width: bounds.width * (1.0 - 2.0 * aside),
        height: bounds.height * (1.0 - above - below),
    }
}

/// Where windows begin along one axis: one in the middle, or two that meet there.
fn window_starts(span: Span, side: usize) -> Vec<usize> {
    let room = span.length - side;
    if (room as f32) < side as f32 * NEW_SHARE_MIN {
        return vec![span.start + room / 2];
    }
    let inset = (room / 2).saturating_sub(side / 2);
    vec![span.start + inset, span.start + room - inset]
}

/// Power spectra of luma and of the difference between red and blue, summed over windows.
struct Spectra {
    plan: Plan,
    /// Hann's window.
    taper: Vec<f32>,
    window: Vec<Complex>,
    /// Rows are frequencies along x, of which the non-negative ones, `side / 2`, are kept.
    power: [Vec<f32>; 2],
}

impl Spectra {
    fn new(side: usize) -> Self {
        let taper = |at: usize| 0.5 - 0.5 * (TAU * (at as f32 + 0.5) / side as f32).cos();
        Self {
            plan: Plan::new(side),
            taper: (0..side).map(taper).collect(),
            window: Vec::with_capacity(side * side),
            power: [vec![0.0; side * side / 2], vec![0.0; side * side / 2]],
        }
    }

    /// Adds the window at (`left`, `top`), which must lie inside the picture. Luma travels as the
    /// real part and colour as the imaginary part of one transform.
    fn add(&mut self, image: &Image, left: usize, top: usize) {
        let side = self.taper.len();
        let stride = image.width() as usize * 3;
        self.window.clear();
        for y in top..top + side {
            for pixel in image.pixels()[y * stride + left * 3..][..side * 3].chunks_exact(3) {
                let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(f32::from);
                self.window.push(((red + 2.0 * green + blue) / 4.0, red - blue));
            }
        }
        self.taper_window();
        self.plan.transform(&mut self.window);
        for y in 0..side / 2 {
            for x in 0..side {
                let here = self.window[y * side + x];
                let mirrored = self.window[(side - y) % side * side + (side - x) % side];
                let at = y * side + x;
                let (sum, difference) = (here.0 + mirrored.0, here.1 - mirrored.1);
                self.power[0][at] += sum * sum + difference * difference;
                let (sum, difference) = (here.1 + mirrored.1, mirrored.0 - here.0);
                self.power[1][at] += sum * sum + difference * difference;
            }
        }
    }

    /// Takes the mean away and fades the edges out, which would be a cross in the spectrum.
    fn taper_window(&mut self) {
        let side = self.taper.len();
        let count = (side * side) as f32;
        let sum = self.window.iter().fold((0.0, 0.0), |sum, v| (sum.0 + v.0, sum.1 + v.1));
        let mean = (sum.0 / count, sum.1 / count);
        for (row, down) in self.window.chunks_exact_mut(side).zip(&self.taper) {
            for (value, along) in row.iter_mut().zip(&self.taper) {
                let share = down * along;
                *value = ((value.0 - mean.0) * share, (value.1 - mean.1) * share);
            }
        }
    }
}

/// Where peaks of one signal are looked for.
struct PeakSearch {
    block_px: f32,
    frequency_max: f32,
}

const LUMA: PeakSearch = PeakSearch { block_px: BLOCK_PX[0], frequency_max: 0.5 };
const COLOUR: PeakSearch =
    PeakSearch { block_px: BLOCK_PX[1], frequency_max: COLOUR_FREQUENCY_MAX };

impl PeakSearch {
    /// The most prominent peak of a half plane of power.
    fn highest(&self, power: &[f32], side: usize) -> f32 {
        let reach = (self.frequency_max * side as f32) as i32;
        let least = (side as f32 / PERIOD_PX_MAX) as i32;
        let half = HalfPlane { power, side: side as i32 };
        let mut highest = 0.0f32;
        for y in 0..reach.min(half.side / 2) {
            for x in 1 - reach..reach {
                let outside = x * x + y * y < least * least;
                if !outside && half.stands_out(x, y) && !self.is_block_edge(x, y, side, BLOCK_BINS)
                {
                    highest = highest.max(self.prominence(&half, x, y));
                }
            }
        }
        highest
    }

    /// Whether a bin lies where the edges of JPEG blocks have their energy.
    fn is_block_edge(&self, x: i32, y: i32, side: usize, bins: f32) -> bool {
        let spacing = side as f32 / self.block_px;
        let near = |bin: i32| {
            let multiples = bin as f32 / spacing;
            (multiples - multiples.round()).abs() * spacing < bins
        };
        near(x) && near(y)
    }

    fn prominence(&self, half: &HalfPlane<'_>, x: i32, y: i32) -> f32 {
        let [inner, outer] = RING_BINS;
        let mut ring = Vec::with_capacity(160);
        for dy in -outer..=outer {
            for dx in -outer..=outer {
                let distance = dx * dx + dy * dy;
                let within = inner * inner <= distance && distance <= outer * outer;
                if within && !self.is_block_edge(x + dx, y + dy, half.side as usize, 1.0) {
                    ring.push(half.at(x + dx, y + dy));
                }
            }
        }
        if ring.is_empty() {
            return 0.0;
        }
        let rank = ((ring.len() as f32 * RING_QUANTILE) as usize).min(ring.len() - 1);
        let (_, background, _) = ring.select_nth_unstable_by(rank, f32::total_cmp);
        // A floor of power, far below a grey level: a flat picture has no peaks.
        let floor = half.floor();
        ((half.at(x, y) + floor) / (*background + floor)).ln().max(0.0)
    }
}

/// A spectrum of real values: the other half mirrors it.
struct HalfPlane<'a> {
    power: &'a [f32],
    side: i32,
}

impl HalfPlane<'_> {
    fn at(&self, x: i32, y: i32) -> f32 {
        let side = self.side;
        let (x, y) = (x.rem_euclid(side), y.rem_euclid(side));
        // The row of the highest frequency is not kept; its neighbour stands for it.
        let (x, y) =
            if y >= side / 2 { ((side - x) % side, (side - y).min(side / 2 - 1)) } else { (x, y) };
        self.power[(y * side + x) as usize]
    }

    /// A local maximum that is twice what lies four bins away in each direction: the cheap test
    /// before the thorough one.
    fn stands_out(&self, x: i32, y: i32) -> bool {
        let here = self.at(x, y);
        let around = [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)];
        around.iter().all(|(dx, dy)| {
            self.at(x + 4 * dx, y + 4 * dy) * 2.0 < here && self.at(x + dx, y + dy) <= here
        })
    }

    /// The power of an alternation by a hundredth of a grey level across the window.
    fn floor(&self) -> f32 {
        let amplitude = 0.01 * (self.side * self.side) as f32 * 0.25;
        amplitude * amplitude
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::cues::drawn;

    const SIZE: (u32, u32) = (400, 420);

    fn face() -> Detection {
        drawn::face(100.0, 90.0, 200.0, 250.0)
    }

    /// The score of a head whose brightness `change` alters.
    fn score(change: impl Fn(f32, f32, f32) -> [f32; 3]) -> f32 {
        let face = face();
        let colour = |x, y| change(x, y, drawn::head(face.bounds, x, y));
        moire(&drawn::picture(SIZE.0, SIZE.1, colour), &face).unwrap()
    }

    fn wave(period_px: f32, turn_deg: f32, x: f32, y: f32) -> f32 {
        let (sin, cos) = turn_deg.to_radians().sin_cos();
        (TAU * (x * cos + y * sin) / period_px).sin()
    }

    #[test]
    fn a_grid_over_a_face_is_seen_and_a_face_without_one_is_not() {
        let plain = score(|_, _, value| [value; 3]);
        assert!(plain > 0.65, "{plain}");
        // None a multiple of the frequency of JPEG blocks, where nothing can be told.
        for period in [2.9, 3.3, 5.1, 6.1, 11.0] {
            for turn in [0.0, 4.0, 33.0] {
                let screen = score(|x, y, value| {
                    let grid = wave(period, turn, x, y) + wave(period, turn + 90.0, x, y);
                    [value * (1.0 + 0.02 * grid); 3]
                });
                assert!(screen < 0.5, "period {period} px, {turn} degrees: {screen}");
            }
        }
    }

    #[test]
    fn coloured_fringes_are_seen() {
        let fringes = score(|x, y, value| {
            let shift = 4.0 * wave(9.3, 20.0, x, y);
            [value + shift, value, value - shift]
        });
        assert!(fringes < 0.5, "{fringes}");
    }

    #[test]
    fn the_blocks_of_a_jpeg_file_are_no_grid() {
        let blocks = score(|x, y, value| {
            [value + 6.0 * drawn::noise((x / 8.0).floor(), (y / 8.0).floor(), 5); 3]
        });
        assert!(blocks > 0.6, "{blocks}");
        let halved = score(|x, y, value| {
            let shift = 8.0 * drawn::noise((x / 16.0).floor(), (y / 16.0).floor(), 5);
            [value + shift, value, value - shift]
        });
        assert!(halved > 0.6, "{halved}");
    }

    #[test]
    fn cloth_below_the_chin_is_no_grid() {
        // Knitwear, whose stitches vary, reaches into the lowest fifth of the box.
        let knit = score(|x, y, value| {
            let strayed = x + 0.8 * drawn::noise((x / 6.0).floor(), (y / 5.0).floor(), 3);
            let stitch = wave(6.0, 0.0, strayed, y) * wave(5.0, 90.0, strayed, y);
            [if y > 290.0 { 110.0 + 40.0 * stitch } else { value }; 3]
        });
        assert!(knit > 0.55, "{knit}");
        let stripes = score(|x, y, value| {
            [if y > 345.0 { 110.0 + 60.0 * wave(7.0, 0.0, x, y).signum() } else { value }; 3]
        });
        assert!(stripes > 0.65, "{stripes}");
    }

    #[test]
    fn spectacles_and_strong_noise_are_no_grid() {
        let frames = score(|x, y, value| {
            let rim = |eye: f32| ((x - eye).hypot(y - 190.0) - 38.0).abs() < 3.0;
            [if rim(155.0) || rim(245.0) { 20.0 } else { value }; 3]
        });
        assert!(frames > 0.65, "{frames}");
        let noisy = score(|x, y, value| [value + 40.0 * drawn::noise(x, y, 9); 3]);
        assert!(noisy > 0.55, "{noisy}");
    }

    #[test]
    fn a_flat_picture_scores_one_and_a_small_face_is_not_judged() {
        let flat = drawn::picture(300, 300, |_, _| [128.0; 3]);
        assert_eq!(moire(&flat, &drawn::face(50.0, 50.0, 150.0, 150.0)), Some(1.0));
        assert!(moire(&flat, &drawn::face(50.0, 50.0, 73.0, 93.0)).is_some());
        assert_eq!(moire(&flat, &drawn::face(50.0, 50.0, 73.0, 90.0)), None);
        // What counts is the part inside the picture.
        assert_eq!(moire(&flat, &drawn::face(250.0, 50.0, 200.0, 200.0)), None);
    }
}
