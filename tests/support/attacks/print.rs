//! Ink on paper: a raster print, a photo print, and what light does to both.

use serde::Serialize;

use crate::attacks::Medium;
use crate::attacks::Spot;
use crate::attacks::draw::Draw;
use crate::attacks::draw::length;
use crate::attacks::draw::mix;
use crate::attacks::draw::noise;
use crate::attacks::draw::step;
use crate::attacks::draw::wave;
use crate::attacks::light::Curve;
use crate::attacks::light::Rgb;
use crate::attacks::light::blend;
use crate::attacks::light::luminance;
use crate::attacks::light::plus;
use crate::attacks::light::times;
use crate::attacks::light::white_of;
use crate::attacks::source::Source;
use crate::attacks::view::Finger;
use crate::attacks::view::Sheet;

/// Screen angles of cyan, magenta, yellow and black in degrees, as offset printers turn them so
/// that the four rasters do not beat.
const ANGLES_DEG: [f32; 4] = [15.0, 75.0, 0.0, 45.0];
/// What solid cyan, magenta, yellow and black let through of red, green and blue.
const INKS: [Rgb; 4] =
    [[0.07, 0.84, 0.92], [0.9, 0.07, 0.82], [0.98, 0.95, 0.09], [0.03, 0.03, 0.03]];
/// Levels of the table that makes a dot of the wanted area.
const AREA_LEVELS: usize = 256;

/// A picture on a sheet of paper.
#[derive(Clone, Debug, Serialize)]
pub struct Print {
    /// Width of the face on the paper.
    pub face_mm: f32,
    /// The printed picture.
    pub picture: Sheet,
    /// The sheet, with its white border.
    pub sheet: Sheet,
    /// Reflectance of the bare paper.
    pub paper: Rgb,
    /// Reflectance of the darkest ink.
    pub black: f32,
    /// Share of the colour that is left.
    pub saturation: f32,
    /// Exponent of the tone curve; above 1 dark tones sink.
    pub tone: f32,
    /// Amplitude and size of the paper's fibres.
    pub fibre: [f32; 2],
    /// The raster of dots; none for a photo print.
    pub raster: Option<Raster>,
    /// The light on it.
    pub lamp: Lamp,
    /// What holds it.
    pub fingers: Vec<Finger>,
    seed: u64,
    #[serde(skip)]
    curve: Curve,
}

/// A raster of ink dots.
#[derive(Clone, Debug, Serialize)]
pub struct Raster {
    /// Lines per inch.
    pub lines_per_inch: f32,
    /// The same in pixels of the frame per line.
    pub period_px: f32,
    /// Share of grey that black ink replaces.
    pub black_share: f32,
    pitch_mm: f32,
    /// Width of a dot's soft edge in areas; ink spreads, and a sample has a size.
    soft: f32,
    /// 1 where a sample covers whole dots and sees only their mean.
    flat: f32,
    /// Cosine and sine of the inks' angles.
    #[serde(skip)]
    turns: [[f32; 2]; 4],
    #[serde(skip)]
    area: Vec<f32>,
}

/// Light on a medium: level, colour, fall-off, a hand's shadow, sheen.
#[derive(Clone, Debug, Serialize)]
pub struct Lamp {
    /// Relative to the room's light.
    pub level: f32,
    /// Colour temperature.
    pub kelvin: f32,
    white: Rgb,
    /// Change of the light per width of the face, to the right and downwards.
    pub gradient: [f32; 2],
    /// How much the bend darkens a side.
    pub lean: f32,
    /// Depth of the shadow of hand or head, 0 is none.
    pub shadow: f32,
    shadow_at: [f32; 2],
    shadow_radius: f32,
    /// Brightness of the sheen relative to white paper, 0 is none.
    pub sheen: f32,
    sheen_at: [f32; 2],
    sheen_size: [f32; 2],
    /// Strength of the shadow that the medium throws behind it.
    pub cast: f32,
    cast_by: [f32; 2],
    unit_mm: f32,
}

impl Lamp {
    /// Light on a medium that shows a face of this width.
    pub fn draw(draw: &mut Draw, unit_mm: f32, sheen: [f32; 2]) -> Self {
        let kelvin = draw.within([3000.0, 7000.0]);
        Self {
            level: draw.scaled([0.7, 1.5]),
            kelvin,
            white: white_of(kelvin),
            gradient: [draw.within([-0.16, 0.16]), draw.within([-0.16, 0.16])],
            lean: draw.within([-0.7, 0.7]),
            shadow: if draw.chance(0.5) { draw.within([0.1, 0.5]) } else { 0.0 },
            shadow_at: [draw.sign() * draw.within([0.5, 1.4]), draw.within([-1.2, 1.4])],
            shadow_radius: draw.within([0.4, 0.9]),
            sheen: draw.within(sheen).max(0.0),
            sheen_at: [draw.within([-0.9, 0.9]), draw.within([-0.9, 0.9])],
            sheen_size: [draw.within([0.25, 0.8]), draw.within([0.5, 1.8])],
            cast: draw.within([0.0, 0.55]),
            cast_by: [draw.within([-0.12, 0.12]), draw.within([0.0, 0.14])],
            unit_mm,
        }
    }

    /// Light that falls on a place.
    pub fn at(&self, spot: &Spot) -> Rgb {
        let [x, y] = spot.mm.map(|mm| mm / self.unit_mm);
        let ramp = (1.0 + self.gradient[0] * x + self.gradient[1] * y).max(0.2);
        let bend = (1.0 + self.lean * spot.slope).max(0.15);
        let far = length(x - self.shadow_at[0], y - self.shadow_at[1]) / self.shadow_radius;
        let dark = 1.0 - self.shadow * (1.0 - step(0.5, 1.2, far));
        self.white.map(|value| value * self.level * ramp * bend * dark)
    }

    /// Light that a glossy surface throws back unchanged.
    pub fn sheen(&self, spot: &Spot) -> Rgb {
        if self.sheen == 0.0 {
            return [0.0; 3];
        }
        let [x, y] = spot.mm.map(|mm| mm / self.unit_mm);
        let across = (x - self.sheen_at[0] + 0.4 * (y - self.sheen_at[1])) / self.sheen_size[0];
        let along = (y - self.sheen_at[1]) / self.sheen_size[1];
        let bell = (-across * across - along * along).exp();
        self.white.map(|value| value * self.level * self.sheen * bell)
    }

    /// Share of the light that reaches what lies behind, by the distance to the medium's outline
    /// from a place moved by [`Lamp::cast_from`].
    pub fn behind(&self, distance_mm: f32) -> f32 {
        1.0 - self.cast * (1.0 - step(-0.06, 0.1, distance_mm / self.unit_mm))
    }

    /// The place whose distance to the medium decides about its shadow.
    pub fn cast_from(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [x - self.cast_by[0] * self.unit_mm, y - self.cast_by[1] * self.unit_mm]
    }
}

impl Raster {
    /// A raster as offset and laser printers lay it, seen at `mm_per_px`, with samples of
    /// `sample_mm`.
    pub fn draw(draw: &mut Draw, mm_per_px: f32, sample_mm: f32) -> Self {
        // 60: newspapers and posters; 85 to 106: office lasers; 133 to 150: magazines.
        let lines_per_inch = draw.scaled([60.0, 150.0]);
        let pitch_mm = 25.4 / lines_per_inch;
        let sample = sample_mm / pitch_mm;
        Self {
            lines_per_inch,
            period_px: pitch_mm / mm_per_px,
            black_share: draw.within([0.2, 0.8]),
            pitch_mm,
            soft: 0.06 + 0.5 * sample,
            flat: step(0.35, 0.9, sample),
            turns: ANGLES_DEG.map(|deg| [deg.to_radians().cos(), deg.to_radians().sin()]),
            area: area_table(),
        }
    }

    /// The light that the dots let through twice, for a wanted reflectance, 0 to 1.
    fn through(&self, wanted: Rgb, [x, y]: [f32; 2]) -> Rgb {
        let grey = 1.0 - wanted[0].max(wanted[1]).max(wanted[2]);
        let black = grey * self.black_share;
        let left = 1.0 - black * (1.0 - INKS[3][0]);
        let ink = |channel: usize| {
            let solid = INKS[channel][channel];
            ((1.0 - wanted[channel] / left) / (1.0 - solid)).clamp(0.0, 1.0)
        };
        let mut light = [1.0; 3];
        for (index, area) in [ink(0), ink(1), ink(2), black].into_iter().enumerate() {
            let [cos, sin] = self.turns[index];
            let u = (x * cos + y * sin) / self.pitch_mm;
            let v = (y * cos - x * sin) / self.pitch_mm;
            let cover = mix(self.dot(area, u, v), area, self.flat);
            light = times(light, INKS[index].map(|t| mix(1.0, t, cover)));
        }
        light
    }

    /// Whether the dot of an ink that covers `area` covers this place, soft at its edge.
    fn dot(&self, area: f32, u: f32, v: f32) -> f32 {
        let height = (0.5 - 0.25 * (wave(u) + wave(v))).clamp(0.0, 1.0);
        let rank = self.area[(height * (AREA_LEVELS - 1) as f32) as usize];
        // At the ends the soft edge must not leave dust on white or holes in solids.
        let soft = self.soft.min(0.5 * area + 0.002).min(0.5 * (1.0 - area) + 0.002);
        step(-soft, soft, area - rank)
    }
}

/// For each height of the dot function the share of the cell that lies below it.
fn area_table() -> Vec<f32> {
    const STEPS: usize = 96;
    let mut counts = vec![0u32; AREA_LEVELS];
    let at = |i: usize| wave((i as f32 + 0.5) / STEPS as f32);
    for y in 0..STEPS {
        for x in 0..STEPS {
            let height = 0.5 - 0.25 * (at(x) + at(y));
            counts[(height * (AREA_LEVELS - 1) as f32) as usize] += 1;
        }
    }
    let mut below = 0;
    let share = |count: u32| {
        below += count;
        (below as f32 - count as f32 / 2.0) / (STEPS * STEPS) as f32
    };
    counts.into_iter().map(share).collect()
}

/// What decides about a print besides its draws.
pub struct PrintPlan {
    /// Width of the face on the paper.
    pub face_mm: f32,
    /// The printed part of the picture.
    pub picture: Sheet,
    /// Whether the paper ends inside the frame.
    pub edges: bool,
    /// The raster, or none for a photo print.
    pub raster: Option<Raster>,
}

impl Print {
    /// A print after a plan.
    pub fn draw(draw: &mut Draw, plan: PrintPlan) -> Self {
        let PrintPlan { face_mm, picture, edges, raster } = plan;
        let border = if draw.chance(0.7) { draw.scaled([2.0, 14.0]) } else { 0.0 };
        let mut sheet = picture.grown(if edges { border } else { 0.0 });
        if edges && border > 0.0 && draw.chance(0.3) {
            // The rest of a larger sheet.
            sheet.bottom += draw.within([0.1, 0.9]) * face_mm;
        }
        let photo = raster.is_none();
        let black = draw.scaled(if photo { [0.008, 0.03] } else { [0.02, 0.07] });
        let tone = draw.within([0.85, 1.2]);
        let white = draw.within(if photo { [0.82, 0.93] } else { [0.72, 0.9] });
        let paper = [white, white * draw.within([0.97, 1.0]), white * draw.within([0.9, 1.04])];
        let fingers = if edges && draw.chance(0.6) { 1 + usize::from(draw.chance(0.4)) } else { 0 };
        Self {
            face_mm,
            picture,
            sheet,
            paper,
            black,
            saturation: draw.within(if photo { [0.85, 1.05] } else { [0.65, 0.95] }),
            tone,
            fibre: [
                draw.scaled(if photo { [0.003, 0.015] } else { [0.01, 0.05] }),
                draw.scaled([0.15, 0.8]),
            ],
            raster,
            lamp: Lamp::draw(draw, face_mm, if photo { [-0.1, 0.3] } else { [-0.1, 0.08] }),
            fingers: (0..fingers).map(|_| Finger::over(draw, sheet, face_mm)).collect(),
            seed: draw.bits(),
            curve: Curve::new(|light| mix(black, 1.0, light.powf(tone))),
        }
    }

    /// Reflectance of the paper at a place, printed or bare.
    pub fn reflectance(&self, source: &Source, mm: [f32; 2]) -> Rgb {
        let [x, y] = mm.map(|mm| mm / self.fibre[1]);
        let grain = 1.0 + self.fibre[0] * noise(self.seed, x, y);
        if self.picture.distance(mm, 0.0) > 0.0 {
            return self.paper.map(|value| value * grain);
        }
        let colour = source.at(mm.map(|mm| mm / self.face_mm)).map(|value| value.min(1.0));
        let grey = luminance(colour);
        let wanted = self.curve.of(blend([grey; 3], colour, self.saturation));
        let printed = self.raster.as_ref().map_or(wanted, |raster| raster.through(wanted, mm));
        times(self.paper, printed).map(|value| value * grain)
    }

    /// Light of a place on the paper.
    pub fn lit(&self, source: &Source, spot: &Spot) -> Rgb {
        plus(times(self.reflectance(source, spot.mm), self.lamp.at(spot)), self.lamp.sheen(spot))
    }
}

/// A print in the hand.
pub struct HeldPrint<'a> {
    /// The print.
    pub print: Print,
    /// What is printed.
    pub source: &'a Source,
}

impl Medium for HeldPrint<'_> {
    fn light(&self, spot: &Spot) -> Option<Rgb> {
        let print = &self.print;
        let finger = print.fingers.iter().find_map(|finger| finger.at(spot.mm));
        if let Some(skin) = finger {
            return Some(times(skin, print.lamp.at(spot)));
        }
        (print.sheet.distance(spot.mm, 0.0) <= 0.0).then(|| print.lit(self.source, spot))
    }

    fn behind(&self, mm: [f32; 2]) -> f32 {
        let lamp = &self.print.lamp;
        lamp.behind(self.print.sheet.distance(lamp.cast_from(mm), 0.0))
    }

    fn extent(&self) -> Sheet {
        self.print.sheet.grown(if self.print.fingers.is_empty() { 1.0 } else { 75.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raster_has_the_wanted_tone_on_the_mean() {
        let mut last = 0.0;
        for wanted in [0.1, 0.3, 0.5, 0.7, 0.9] {
            let raster = Raster::draw(&mut Draw::new(1, &["raster"]), 0.5, 0.02);
            let side = 200;
            let place = |i: usize| [(i % side) as f32 * 0.043, (i / side) as f32 * 0.043];
            let green = |i: usize| raster.through([wanted; 3], place(i))[1];
            let values: Vec<f32> = (0..side * side).map(green).collect();
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            // Real inks absorb a little of the colours that they should let through.
            assert!(mean > 0.78 * wanted && mean < 1.05 * wanted, "{wanted}: {mean}");
            assert!(mean > last, "{wanted}: {mean}");
            let spread = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>();
            assert!((spread / values.len() as f32).sqrt() > 0.1, "{wanted}: there are no dots");
            last = mean;
        }
    }

    #[test]
    fn dots_much_smaller_than_a_sample_are_their_mean() {
        let raster = Raster::draw(&mut Draw::new(1, &["raster"]), 8.0, 2.0);
        let at = |x: f32| raster.through([0.4; 3], [x, 0.0])[1];
        assert_eq!(at(0.0), at(0.117));
    }
}
