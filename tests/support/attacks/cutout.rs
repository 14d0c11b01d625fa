//! A print cut along the outline of the face and held before a figure, with or without eye holes.

use serde::Serialize;

use crate::attacks::Medium;
use crate::attacks::Spot;
use crate::attacks::draw::Draw;
use crate::attacks::draw::length;
use crate::attacks::draw::noise;
use crate::attacks::draw::step;
use crate::attacks::light::Rgb;
use crate::attacks::light::times;
use crate::attacks::print::Print;
use crate::attacks::source::Source;
use crate::attacks::view::Sheet;

/// The outline, the holes, and who stands behind. Lengths in widths of the face unless they say
/// otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct CutOut {
    /// The print that is cut.
    pub print: Print,
    /// Half the width and height of the outline.
    pub half: [f32; 2],
    /// How much narrower the chin is, 0 to 1.
    pub chin: f32,
    /// Depth of the scissors' errors.
    pub ragged: f32,
    /// Width of the bright edge of the paper in millimetres.
    pub rim_mm: f32,
    /// The holes for the eyes, if there are any.
    pub holes: Option<Holes>,
    /// The figure that holds it.
    pub figure: Figure,
    seed: u64,
}

/// Two holes.
#[derive(Clone, Debug, Serialize)]
pub struct Holes {
    /// Half width and height.
    pub half: [f32; 2],
    /// Whether somebody's eyes look through; else it is dark behind.
    pub eyes: bool,
    /// How far these eyes are off, to the right and downwards.
    pub offset: [f32; 2],
    /// Their size relative to the printed ones.
    pub scale: f32,
    /// Share of the light that reaches them.
    pub light: f32,
    /// Light of a hole with nobody behind.
    pub dark: Rgb,
}

/// Head and shoulders.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Whether there is one.
    pub there: bool,
    head: [f32; 2],
    head_half: [f32; 2],
    hair: Rgb,
    skin: Rgb,
    cloth: Rgb,
    shoulder_top: f32,
    shoulder_half: f32,
    folds: f32,
}

impl Figure {
    fn draw(draw: &mut Draw) -> Self {
        let red = draw.scaled([0.12, 0.6]);
        let cloth = draw.scaled([0.02, 0.6]);
        let hair = draw.scaled([0.01, 0.15]);
        Self {
            there: draw.chance(0.9),
            head: [draw.within([-0.12, 0.12]), draw.within([-0.2, 0.02])],
            head_half: [draw.within([0.5, 0.72]), draw.within([0.72, 0.95])],
            hair: [hair, hair * draw.within([0.6, 1.0]), hair * draw.within([0.4, 1.0])],
            skin: [red, red * draw.within([0.5, 0.68]), red * draw.within([0.32, 0.52])],
            cloth: [0, 1, 2].map(|_| cloth * draw.within([0.5, 1.5])),
            shoulder_top: draw.within([0.85, 1.1]),
            shoulder_half: draw.within([1.1, 1.5]),
            folds: draw.within([0.05, 0.3]),
        }
    }

    /// Reflectance of the figure at a place, when it is there.
    fn at(&self, seed: u64, [x, y]: [f32; 2]) -> Option<Rgb> {
        if !self.there {
            return None;
        }
        let (dx, dy) = (x - self.head[0], y - self.head[1]);
        let strand = noise(seed ^ 2, x * 60.0, y * 9.0);
        let round = length(dx / self.head_half[0], dy / self.head_half[1]);
        if round < 1.0 {
            // Ears and cheeks at the sides of the lower half, hair elsewhere.
            let tone = (1.15 - 0.6 * round * round).max(0.2);
            let is_skin = step(-0.03, 0.03, dy - 0.1 * strand);
            return Some([0, 1, 2].map(|c| {
                let hair = self.hair[c] * (1.0 + 0.4 * strand);
                (hair + (self.skin[c] - hair) * is_skin) * tone
            }));
        }
        let slope = 0.34 * (dx / self.shoulder_half).powi(2) * self.shoulder_half;
        let down = dy - self.shoulder_top - slope;
        let fold = 1.0 + self.folds * noise(seed ^ 3, x * 5.0, y * 3.0);
        if down > 0.0 && dx.abs() < self.shoulder_half {
            let round = 1.0 - 0.5 * (dx / self.shoulder_half).powi(4);
            return Some(self.cloth.map(|value| value * fold * round));
        }
        let is_neck = dy > 0.3 && dx.abs() < 0.36 && down > -0.6;
        is_neck.then(|| self.skin.map(|value| value * 0.55 * fold))
    }
}

impl CutOut {
    /// Cuts a print along its face.
    pub fn draw(draw: &mut Draw, print: Print, source: &Source, has_holes: bool) -> Self {
        // The outline of a face: temples and jaw lie just outside the detector's box.
        let wide = draw.within([0.5, 0.66]);
        let high = (wide + draw.within([-0.02, 0.06])) * source.aspect;
        let holes = has_holes.then(|| {
            let half = draw.within([0.1, 0.15]);
            Holes {
                half: [half, half * draw.within([0.45, 0.75])],
                eyes: draw.chance(0.75),
                offset: [draw.within([-0.02, 0.02]), draw.within([-0.02, 0.02])],
                scale: draw.within([0.85, 1.15]),
                light: draw.within([0.45, 0.9]),
                dark: [draw.scaled([0.003, 0.03]); 3],
            }
        });
        Self {
            print,
            half: [wide, high],
            chin: draw.within([0.1, 0.34]),
            ragged: draw.scaled([0.004, 0.03]),
            rim_mm: draw.scaled([0.1, 0.8]),
            holes,
            figure: Figure::draw(draw),
            seed: draw.bits(),
        }
    }

    /// Distance to the outline in widths of the face, negative inside.
    fn outside(&self, [x, y]: [f32; 2]) -> f32 {
        let taper = 1.0 - self.chin * (y / self.half[1]).clamp(0.0, 1.0).powi(2);
        let (dx, dy) = (x / (self.half[0] * taper), y / self.half[1]);
        let round = length(dx, dy).max(1e-3);
        let error = noise(self.seed, dx / round * 5.0, dy / round * 5.0);
        (round - 1.0) * self.half[0] + error * self.ragged
    }

    /// Distance to the nearer hole, negative inside, and which one that is.
    fn hole(&self, source: &Source, [x, y]: [f32; 2]) -> Option<(f32, usize)> {
        let holes = self.holes.as_ref()?;
        let distance = |eye: usize| {
            let [ex, ey] = source.landmarks[eye];
            let (dx, dy) = ((x - ex) / holes.half[0], (y - ey) / holes.half[1]);
            let round = length(dx, dy).max(1e-3);
            let error = noise(self.seed ^ (5 + eye as u64), dx / round * 3.0, dy / round * 3.0);
            (round - 1.0) * holes.half[1] + error * self.ragged * 0.5
        };
        let (left, right) = (distance(0), distance(1));
        Some(if left < right { (left, 0) } else { (right, 1) })
    }
}

/// A cut-out in front of a figure in front of a room.
pub struct HeldCutOut<'a> {
    /// The cut-out.
    pub cut: CutOut,
    /// Who is printed.
    pub source: &'a Source,
    /// Who looks through the holes.
    pub other: &'a Source,
}

impl HeldCutOut<'_> {
    /// What is seen through a hole.
    fn through(&self, holes: &Holes, eye: usize, [x, y]: [f32; 2], edge: f32) -> Rgb {
        // The paper's edge shades what is right behind it.
        let shade = holes.light * step(0.0, 0.05, -edge + 0.012);
        if !holes.eyes {
            return holes.dark;
        }
        let ([ex, ey], [ox, oy]) = (self.source.landmarks[eye], self.other.landmarks[eye]);
        let place = [
            ox + (x - ex - holes.offset[0]) / holes.scale,
            oy + (y - ey - holes.offset[1]) / holes.scale,
        ];
        self.other.at(place).map(|value| value * shade)
    }
}

impl Medium for HeldCutOut<'_> {
    fn light(&self, spot: &Spot) -> Option<Rgb> {
        let (cut, lamp) = (&self.cut, &self.cut.print.lamp);
        let unit = cut.print.face_mm;
        let place = spot.mm.map(|mm| mm / unit);
        // The cut is seen where the paper leans away, not all around.
        let turned = 0.5 + noise(cut.seed ^ 9, place[0] * 2.5, place[1] * 2.5);
        let rim = cut.rim_mm / unit * turned.max(0.0);
        let outside = cut.outside(place);
        if outside > 0.0 {
            // The figure is lit like the paper, but for the paper's shadow.
            let shade =
                lamp.behind(cut.outside(lamp.cast_from(spot.mm).map(|mm| mm / unit)) * unit);
            let flat = Spot { slope: 0.0, ..*spot };
            let light = lamp.at(&flat).map(|value| value * shade);
            return cut.figure.at(cut.seed, place).map(|colour| times(colour, light));
        }
        let edge = cut.hole(self.source, place);
        if let (Some((distance, eye)), Some(holes)) = (edge, &cut.holes)
            && distance < 0.0
        {
            return Some(times(self.through(holes, eye, place, distance), lamp.at(spot)));
        }
        let nearest = edge.map_or(-outside, |(distance, _)| distance.min(-outside));
        if nearest < rim {
            return Some(times(cut.print.paper, lamp.at(spot)));
        }
        Some(cut.print.lit(self.source, spot))
    }

    fn behind(&self, mm: [f32; 2]) -> f32 {
        // Only the figure throws a shadow on a wall so far away, and that is soft beyond notice.
        let unit = self.cut.print.face_mm;
        if self.cut.figure.there {
            return 1.0;
        }
        let lamp = &self.cut.print.lamp;
        lamp.behind(self.cut.outside(lamp.cast_from(mm).map(|mm| mm / unit)) * unit)
    }

    fn extent(&self) -> Sheet {
        let unit = self.cut.print.face_mm;
        let reach = if self.cut.figure.there { 3.0 } else { 1.2 };
        Sheet { left: -unit, top: -unit, right: unit, bottom: unit }.grown((reach - 1.0) * unit)
    }
}
