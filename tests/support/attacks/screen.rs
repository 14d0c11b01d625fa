//! A picture on a screen: its grid of coloured emitters, its frame, and what its glass reflects.
//!
//! The grid is a sum of waves, each damped by the small Gaussian of one sample, so that sampling
//! adds no beat of its own: what moiré a frame shows arose on the camera's pixels.

use std::f32::consts::PI;

use serde::Serialize;

use crate::attacks::Medium;
use crate::attacks::SAMPLES;
use crate::attacks::Spot;
use crate::attacks::draw::Draw;
use crate::attacks::draw::floor;
use crate::attacks::draw::length;
use crate::attacks::draw::step;
use crate::attacks::draw::wave as wave_at;
use crate::attacks::light::Curve;
use crate::attacks::light::Light;
use crate::attacks::light::Rgb;
use crate::attacks::light::coded;
use crate::attacks::light::plus;
use crate::attacks::light::times;
use crate::attacks::light::white_of;
use crate::attacks::source::Source;
use crate::attacks::source::fitted;
use crate::attacks::view::Finger;
use crate::attacks::view::Sheet;

/// A weaker wave is left out.
const WAVE_MIN: f32 = 0.004;

/// Which device shows the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// 6 inches, upright.
    Phone,
    /// 8 to 11 inches, upright.
    Tablet,
    /// 13 to 16 inches, with its keyboard below.
    Laptop,
    /// A desktop monitor, its bezel out of view.
    Monitor,
}

/// How the emitters of a pixel lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Three upright stripes: red, green, blue.
    Stripes,
    /// As many green emitters as pixels, half as many red and blue ones, in a diamond.
    Diamond,
}

/// A device, its picture and its surroundings.
#[derive(Clone, Debug, Serialize)]
pub struct Screen {
    /// Which device.
    pub device: Device,
    /// Width of the face on it.
    pub face_mm: f32,
    /// Screen pixels per inch.
    pub pixels_per_inch: f32,
    /// Screen pixels per pixel of the frame.
    pub pixels_per_px: f32,
    /// How its emitters lie.
    pub layout: Layout,
    /// The lit part.
    pub display: Sheet,
    /// The picture on it.
    pub picture: Sheet,
    /// The device's outline, with bezel.
    pub body: Sheet,
    /// Radius of its corners.
    pub corner_mm: f32,
    /// Reflectance of the bezel.
    pub bezel: f32,
    /// Brightness of white relative to the room's light on white paper.
    pub level: f32,
    /// Colour temperature of white.
    pub kelvin: f32,
    white: Rgb,
    /// Exponent from coded value to light; pictures are made for 2.2.
    pub gamma: f32,
    /// Light of a black pixel relative to white.
    pub black: f32,
    /// Light of the bars beside the picture relative to white.
    pub bars: f32,
    /// Share of the room's light that the glass reflects.
    pub reflected: f32,
    /// A lamp's reflection: brightness relative to white, place and size in widths of the face.
    pub glare: f32,
    glare_at: [f32; 2],
    glare_size: [f32; 2],
    /// Dark bands of a dimmed backlight under a rolling shutter: depth, period in rows, phase.
    pub bands: [f32; 3],
    /// What holds it.
    pub fingers: Vec<Finger>,
    #[serde(skip)]
    waves: Vec<Wave>,
    #[serde(skip)]
    curve: Curve,
}

/// One Fourier term of the grid.
#[derive(Clone, Copy, Debug)]
struct Wave {
    /// Cycles per screen pixel to the right and downwards.
    cycles: [f32; 2],
    /// Amplitude relative to the mean, per colour.
    gain: Rgb,
    /// Phase in cycles, per colour.
    phase: Rgb,
}

/// Fourier amplitude of a row of bars of a width, relative to the mean.
fn bar(cycles: f32, width: f32) -> f32 {
    let x = PI * cycles * width;
    if x.abs() < 1e-4 { 1.0 } else { x.sin() / x }
}

impl Layout {
    /// The waves of the grid that a camera with samples of `pixels_per_sample` screen pixels may
    /// see, of a Gaussian of `sigma` samples; `fill` is the lit share of an emitter's cell in each direction.
    fn waves(self, pixels_per_sample: f32, sigma: f32, fill: [f32; 2]) -> Vec<Wave> {
        let mut waves = Vec::new();
        for down in -8i32..=8 {
            for across in 0i32..=8 {
                if across == 0 && down <= 0 {
                    continue;
                }
                // The diamond of red and blue repeats every two pixels.
                let cycles = [across as f32 / 2.0, down as f32 / 2.0];
                let whole = across % 2 == 0 && down % 2 == 0;
                let diamond = (across + down) % 2 == 0;
                let size = match self {
                    Self::Stripes => [fill[0] / 3.0, fill[1]],
                    Self::Diamond => [fill[0] * 0.5, fill[1] * 0.5],
                };
                let form = 2.0 * bar(cycles[0], size[0]) * bar(cycles[1], size[1]);
                let seen = cycles[0].hypot(cycles[1]) * pixels_per_sample * sigma;
                let gain = form * (-2.0 * PI * PI * seen * seen).exp();
                let (gain, phase) = match self {
                    Self::Stripes if whole => {
                        ([gain; 3], [1.0, 3.0, 5.0].map(|sixth| cycles[0] * sixth / 6.0))
                    }
                    Self::Diamond => {
                        let green = if whole { gain } else { 0.0 };
                        let other = if diamond { gain } else { 0.0 };
                        let second = cycles[0] * 1.5 + cycles[1] * 0.5;
                        let first = cycles[0] * 0.5 + cycles[1] * 0.5;
                        ([other, green, other], [first, 0.0, second])
                    }
                    Self::Stripes => continue,
                };
                if gain.iter().any(|gain| gain.abs() > WAVE_MIN) {
                    waves.push(Wave { cycles, gain, phase });
                }
            }
        }
        waves
    }
}

/// What of the camera decides about the grid.
#[derive(Clone, Copy, Debug)]
pub struct SeenBy {
    /// Width of the face in the frame.
    pub face_px: f32,
    /// Standard deviation of a sample's Gaussian, in samples.
    pub sample_sigma: f32,
}

/// Sizes of a device.
struct Build {
    size_mm: [f32; 2],
    pixels_per_inch: f32,
    /// Bezel at the sides, above and below.
    bezel_mm: [f32; 3],
    corner_mm: f32,
    layout: Layout,
}

impl Device {
    fn build(self, draw: &mut Draw) -> Build {
        match self {
            Self::Phone => {
                let narrow = draw.chance(0.6);
                let width = draw.within([60.0, 71.0]);
                let side = if narrow { draw.within([1.5, 3.0]) } else { draw.within([2.5, 5.0]) };
                let end = if narrow { draw.within([2.0, 6.0]) } else { draw.within([9.0, 17.0]) };
                Build {
                    size_mm: [width, width * if narrow { draw.within([2.0, 2.2]) } else { 1.78 }],
                    pixels_per_inch: draw.within([300.0, 460.0]),
                    bezel_mm: [side, end, end],
                    corner_mm: draw.within([4.0, 10.0]),
                    layout: draw.pick(&[Layout::Stripes, Layout::Diamond]),
                }
            }
            Self::Tablet => {
                let width = draw.within([118.0, 165.0]);
                let side = draw.within([6.0, 14.0]);
                let end = draw.within([7.0, 20.0]);
                Build {
                    size_mm: [width, width * draw.within([1.33, 1.6])],
                    pixels_per_inch: draw.within([190.0, 270.0]),
                    bezel_mm: [side, end, end],
                    corner_mm: draw.within([4.0, 12.0]),
                    layout: Layout::Stripes,
                }
            }
            Self::Laptop => {
                let width = draw.within([286.0, 345.0]);
                let (side, above) = (draw.within([4.0, 12.0]), draw.within([7.0, 15.0]));
                Build {
                    size_mm: [width, width * draw.pick(&[0.5625, 0.625])],
                    pixels_per_inch: draw.within([100.0, 227.0]),
                    bezel_mm: [side, above, draw.within([10.0, 24.0])],
                    corner_mm: draw.within([2.0, 8.0]),
                    layout: Layout::Stripes,
                }
            }
            Self::Monitor => Build {
                size_mm: [0.0; 2],
                pixels_per_inch: draw.within([82.0, 163.0]),
                bezel_mm: [0.0; 3],
                corner_mm: 0.0,
                layout: Layout::Stripes,
            },
        }
    }

    /// Width of the face on a display of this size.
    fn face_mm(self, draw: &mut Draw, source: &Source, [width, height]: [f32; 2]) -> f32 {
        let [left, top, right, bottom] = source.reach;
        match self {
            // The picture is zoomed to fill the width.
            Self::Phone => width / draw.within([1.5, 2.4]).min(left + right),
            Self::Tablet => width / draw.within([1.6, 2.8]).min(left + right),
            Self::Laptop => height / (draw.within([1.7, 2.5]) * source.aspect).min(top + bottom),
            Self::Monitor => draw.scaled([75.0, 165.0]),
        }
    }
}

impl Screen {
    /// A device that shows the source.
    pub fn draw(draw: &mut Draw, device: Device, source: &Source, seen_by: SeenBy) -> Self {
        let build = device.build(draw);
        let face_mm = device.face_mm(draw, source, build.size_mm);
        let whole = {
            let [left, top, right, bottom] = source.reach.map(|reach| reach * face_mm);
            Sheet { left: -left, top: -top, right, bottom }
        };
        let (display, picture) = match device {
            Device::Monitor => (whole, whole),
            _ => fitted(source, build.size_mm, face_mm),
        };
        let [side, above, below] = build.bezel_mm;
        let body = Sheet {
            left: display.left - side,
            top: display.top - above,
            right: display.right + side,
            bottom: display.bottom + below,
        };
        let pixels_per_px = build.pixels_per_inch / 25.4 * face_mm / seen_by.face_px;
        let fill = [draw.within([0.7, 0.92]), draw.within([0.7, 0.92])];
        let kelvin = draw.within([5500.0, 9300.0]);
        let held = matches!(device, Device::Phone | Device::Tablet);
        let fingers = if held && draw.chance(0.6) { 1 + usize::from(draw.chance(0.5)) } else { 0 };
        let lit = |draw: &mut Draw, chance: f32, range: [f32; 2]| {
            if draw.chance(chance) { draw.scaled(range) } else { 0.0 }
        };
        let gamma = draw.within([1.9, 2.5]);
        Self {
            device,
            face_mm,
            pixels_per_inch: build.pixels_per_inch,
            pixels_per_px,
            layout: build.layout,
            display,
            picture,
            body,
            corner_mm: build.corner_mm,
            bezel: if draw.chance(0.8) {
                draw.scaled([0.01, 0.05])
            } else {
                draw.within([0.5, 0.8])
            },
            level: draw.scaled([0.6, 3.0]),
            kelvin,
            white: white_of(kelvin),
            gamma,
            black: draw.scaled([0.0005, 0.004]),
            bars: if draw.chance(0.8) { 0.0 } else { draw.within([0.5, 1.0]) },
            reflected: draw.scaled([0.004, 0.05]),
            glare: lit(draw, 0.5, [0.08, 1.2]),
            glare_at: [draw.within([-1.0, 1.0]), draw.within([-1.0, 1.0])],
            glare_size: [draw.scaled([0.06, 0.6]), draw.scaled([0.06, 0.6])],
            bands: [lit(draw, 0.35, [0.02, 0.2]), draw.scaled([18.0, 260.0]), draw.unit()],
            fingers: (0..fingers).map(|_| Finger::over(draw, body, face_mm)).collect(),
            waves: build.layout.waves(pixels_per_px / SAMPLES as f32, seen_by.sample_sigma, fill),
            curve: Curve::new(|light| coded(light).powf(gamma)),
        }
    }

    /// The light of the lit part at a place, without reflections.
    fn emitted(&self, source: &Source, spot: &Spot) -> Rgb {
        let per_mm = self.pixels_per_inch / 25.4;
        let grid =
            [(spot.mm[0] - self.display.left) * per_mm, (spot.mm[1] - self.display.top) * per_mm];
        // A screen pixel has one colour: that of the picture at its middle.
        let middle = [
            self.display.left + (floor(grid[0]) as f32 + 0.5) / per_mm,
            self.display.top + (floor(grid[1]) as f32 + 0.5) / per_mm,
        ];
        let shown = if self.picture.distance(middle, 0.0) > 0.0 {
            [self.bars; 3]
        } else {
            self.curve.of(source.at(middle.map(|mm| mm / self.face_mm)))
        };
        let mut grating = [1.0f32; 3];
        for wave in &self.waves {
            let turns = wave.cycles[0] * grid[0] + wave.cycles[1] * grid[1];
            for ((sum, gain), phase) in grating.iter_mut().zip(wave.gain).zip(wave.phase) {
                *sum += gain * wave_at(turns - phase);
            }
        }
        let [depth, period, phase] = self.bands;
        let band = 1.0 - depth * 0.5 * (1.0 + wave_at(spot.row / period + phase));
        let lit = [0, 1, 2].map(|c| (self.black + shown[c]) * grating[c].max(0.0));
        times(lit, self.white).map(|value| value * self.level * band)
    }

    /// A lamp that the glass shows.
    fn glare(&self, [x, y]: [f32; 2]) -> f32 {
        if self.glare == 0.0 {
            return 0.0;
        }
        let dx = (x / self.face_mm - self.glare_at[0]) / self.glare_size[0];
        let dy = (y / self.face_mm - self.glare_at[1]) / self.glare_size[1];
        let far = length(dx, dy);
        self.glare
            * self.level
            * (0.6 * (1.0 - step(0.0, 1.0, far)).sqrt() + 0.4 * (-far * far * 0.5).exp())
    }
}

/// A device in front of a room.
pub struct HeldScreen<'a> {
    /// The device.
    pub screen: Screen,
    /// What it shows.
    pub source: &'a Source,
    /// The room that its glass reflects, small.
    pub mirrored: Light,
    /// The room's light.
    pub ambient: Rgb,
}

impl HeldScreen<'_> {
    /// Keys and palm rest below a laptop's screen, when the place is there.
    fn deck(&self, [x, y]: [f32; 2]) -> Option<f32> {
        let body = self.screen.body;
        let (below, inset) = (y - body.bottom, 8.0);
        if self.screen.device != Device::Laptop || below < 0.0 {
            return None;
        }
        if below > 130.0 || x < body.left - below * 0.08 || x > body.right + below * 0.08 {
            return None;
        }
        let (row, column) = ((below - inset) / 13.0, (x - body.left - inset) / 19.0);
        let keys = (0.0..5.0).contains(&row) && x > body.left + inset && x < body.right - inset;
        let between = row.fract() < 0.14 || column.fract() < 0.12;
        let metal = if self.screen.bezel > 0.3 { 0.55 } else { 0.28 };
        Some(if below < 4.0 {
            0.02
        } else if keys && !between {
            0.03
        } else {
            metal
        })
    }
}

impl Medium for HeldScreen<'_> {
    fn light(&self, spot: &Spot) -> Option<Rgb> {
        let screen = &self.screen;
        let skin = screen.fingers.iter().find_map(|finger| finger.at(spot.mm));
        if let Some(skin) = skin {
            return Some(times(skin, self.ambient));
        }
        let outside = screen.body.distance(spot.mm, screen.corner_mm);
        if outside > 0.0 {
            return self.deck(spot.mm).map(|tone| self.ambient.map(|value| value * tone));
        }
        let [width, height] = screen.body.size();
        let share = [
            1.0 - (spot.mm[0] - screen.body.left) / width,
            (spot.mm[1] - screen.body.top) / height,
        ];
        let mirror = self.mirrored.coarse(
            share[0] * self.mirrored.width as f32 - 0.5,
            share[1] * self.mirrored.height as f32 - 0.5,
        );
        let glare = screen.glare(spot.mm);
        let surface = mirror.map(|value| value * screen.reflected + glare);
        if screen.display.distance(spot.mm, (screen.corner_mm - 3.0).max(0.0)) > 0.0 {
            // The outermost millimetre catches the light.
            let edge = if outside > -0.8 { 2.5 } else { 1.0 };
            let paint = self.ambient.map(|value| value * screen.bezel * edge);
            return Some(plus(paint, surface.map(|value| value * 0.6)));
        }
        Some(plus(screen.emitted(self.source, spot), surface))
    }

    fn extent(&self) -> Sheet {
        let mut extent =
            self.screen.body.grown(if self.screen.fingers.is_empty() { 1.0 } else { 75.0 });
        if self.screen.device == Device::Laptop {
            extent = extent.grown(12.0);
            extent.bottom += 130.0;
        }
        extent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_grid_that_samples_resolve_leaves_waves() {
        for layout in [Layout::Stripes, Layout::Diamond] {
            assert!(layout.waves(4.0, 0.6, [0.8; 2]).is_empty(), "{layout:?}");
            assert!(!layout.waves(0.2, 0.6, [0.8; 2]).is_empty(), "{layout:?}");
        }
    }

    #[test]
    fn stripes_are_red_green_blue_from_left_to_right() {
        let waves = Layout::Stripes.waves(0.02, 0.6, [0.8; 2]);
        let light = |x: f32| {
            let mut sum = [1.0f32; 3];
            for wave in &waves {
                for (c, value) in sum.iter_mut().enumerate() {
                    *value += wave.gain[c] * wave_at(wave.cycles[0] * x - wave.phase[c]);
                }
            }
            sum
        };
        for (colour, x) in [1.0f32 / 6.0, 0.5, 5.0 / 6.0].into_iter().enumerate() {
            let found = light(x);
            let brightest = (0..3).max_by(|a, b| found[*a].total_cmp(&found[*b]));
            assert_eq!(brightest, Some(colour), "at {x}: {found:?}");
        }
    }
}
