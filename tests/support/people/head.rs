//! The shape of a head: a skull of smooth cross-sections, and a relief of nose, brows, lips and
//! chin on its front.
//!
//! The relief moves the front towards the camera only, as a function of where a point lies seen
//! from the front. So every feature has a place (x, y) on the neutral face, which paint and truth
//! share.

use crate::people::maths::{Vec3, clouds, hill, hill2, mix, noise, soft_max, step};
use crate::people::mesh::{Material, Mesh, Vertex};
use crate::people::skin;
use crate::people::traits::Person;
use crate::people::{Expression, Shot};

/// Rows and columns of the head's grid for a face that fills the picture.
const GRID_MAX: f32 = 280.0;
const GRID_MIN: f32 = 96.0;
/// Radius of the eyeball with the lid on it.
const LID_RADIUS: f32 = 13.6;
/// How far the jaw drops in a wide open mouth.
const DROP: f32 = 15.0;
/// Greatest shift of a place by a face's own waves, and greatest height of its own bumps.
const ASYMMETRY: f32 = 6.0;
const UNEVENNESS: f32 = 6.0;
/// Half height of the seam between the lips, which is what an open mouth tears open.
pub const SEAM: f32 = 0.9;

/// One cross-section: height, half width at the ears, depth before and behind them.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub y: f32,
    pub wide: f32,
    pub front: f32,
    pub back: f32,
}

/// A head with an expression.
pub struct Head<'a> {
    pub person: &'a Person,
    expression: Expression,
    sections: Vec<Section>,
    /// Depth of the centres of both eyeballs.
    eye_depth: f32,
}

impl<'a> Head<'a> {
    pub fn new(person: &'a Person, shot: &Shot) -> Self {
        let sections = sections(person);
        let mut head = Self { person, expression: shot.expression, sections, eye_depth: f32::MIN };
        let socket = head.plain(person.eyes.apart, 0.0) + head.relief(person.eyes.apart, 0.0);
        head.eye_depth = socket + 4.2 - LID_RADIUS + 0.6 * person.eyes.depth;
        head
    }

    /// The cross-section at a height.
    pub fn section(&self, y: f32) -> Section {
        let all = &self.sections;
        let next = all.partition_point(|section| section.y < y).clamp(1, all.len() - 1);
        let (a, b) = (all[next - 1], all[next]);
        let t = ((y - a.y) / (b.y - a.y).max(1e-3)).clamp(0.0, 1.0);
        Section {
            y,
            wide: mix(a.wide, b.wide, t),
            front: mix(a.front, b.front, t),
            back: mix(a.back, b.back, t),
        }
    }

    /// Depth of the front without relief.
    fn plain(&self, x: f32, y: f32) -> f32 {
        let section = self.section(y);
        let n = self.person.skull.flatness;
        let inside = 1.0 - (x.abs() / section.wide.max(1.0)).min(1.0).powf(n);
        section.front * inside.powf(1.0 / n)
    }

    /// The place of a point of the neutral face, with the expression.
    pub fn place(&self, x: f32, y: f32) -> Vec3 {
        self.shaped([x, y, self.plain(x, y)], 1.0)
    }

    /// Relief, eyeballs and expression for a point of the plain skull; `front` is 0 on its back.
    fn shaped(&self, [x, y, z]: Vec3, front: f32) -> Vec3 {
        if front <= 0.0 {
            return self.skewed([x, y, z]);
        }
        let mut depth = z + front * self.relief(x, y);
        for side in [-1.0, 1.0] {
            let [ex, ey] = eye_centre(self.person, side);
            let far = (x - ex).powi(2) + (y - ey).powi(2);
            if far < LID_RADIUS * LID_RADIUS && front > 0.9 {
                let ball = self.eye_depth + (LID_RADIUS * LID_RADIUS - far).sqrt();
                depth = soft_max(depth, ball, 2.2);
            }
        }
        let [dx, dy, dz] = self.moved(x, y);
        self.skewed([x + dx * front, y + dy * front, depth + dz * front])
    }

    fn skewed(&self, [x, y, z]: Vec3) -> Vec3 {
        let [lower, aside] = self.person.skull.skew;
        // No face is symmetric: soft waves move every place of it a little, each face's its own.
        let seed = self.person.skin.seed ^ 0x91;
        let wave = |which: u32| ASYMMETRY * clouds(x * 0.026, y * 0.026, 2, seed ^ which);
        [x + aside * y / 100.0 + wave(0), y + lower * x / 60.0 + wave(1), z]
    }

    fn relief(&self, x: f32, y: f32) -> f32 {
        let person = self.person;
        let (skull, eyes) = (&person.skull, &person.eyes);
        let ax = x.abs();
        let mut z = skull.brow_ridge * hill2(ax - 24.0, 20.0, y + 17.5, 7.5);
        z += 0.6 * skull.brow_ridge * hill2(x, 13.0, y + 16.0, 9.0);
        z -= (6.5 + eyes.depth) * hill2(ax - eyes.apart, 15.5, y - 0.5, 10.5);
        z -= 2.8 * hill2(ax - 16.0, 6.0, y + 1.0, 8.5);
        z -= 1.2 * eyes.bags * hill2(ax - eyes.apart + 3.0, 13.0, y - 15.0, 3.0);
        z += 1.6 * eyes.bags * hill2(ax - eyes.apart, 12.0, y - 10.0, 3.5);
        z += skull.cheekbone * hill2(ax - 46.0, 17.0, y - 24.0, 14.0);
        z += skull.hollow * hill2(ax - 45.0, 15.0, y - 60.0, 20.0);
        z += skull.fullness * hill2(ax - 38.0, 24.0, y - 48.0, 28.0);
        z += UNEVENNESS * clouds(x * 0.04, y * 0.04, 3, person.skin.seed ^ 0x92);
        z + self.nose(x, y) + self.lips(x, y) + self.folds(x, y)
    }

    fn nose(&self, x: f32, y: f32) -> f32 {
        let nose = &self.person.nose;
        if !(-30.0..nose.base_y + 16.0).contains(&y) || x.abs() > 45.0 {
            return 0.0;
        }
        let down = ((y + 16.0) / (nose.tip_y + 16.0)).clamp(0.0, 1.0);
        let dx = x - nose.lean * down;
        let mut height = nose.root * step(-26.0, -4.0, y) * (1.0 - down);
        height += nose.forward * down.powf(1.45) + nose.hump * hill(down - 0.5, 0.2);
        height *= 1.0 - step(nose.tip_y + 0.5, nose.base_y + 1.5, y);
        let width = mix(nose.bridge, nose.tip, down * down);
        let p = (dx / width).powi(2);
        let mut z = height * (-p * p.sqrt().max(0.6)).exp();
        z += nose.bulb * hill2(dx, 8.5, y - nose.tip_y + 1.0, 6.5);
        let ax = dx.abs();
        let wing = ax - (nose.wings - 0.75 * nose.wing_size);
        z += 0.48 * nose.forward * hill2(wing, nose.wing_size * 0.8, y - nose.base_y + 5.0, 5.5);
        z -= 1.6 * hill2(ax - nose.wings - 2.0, 2.6, y - nose.base_y + 6.0, 6.0);
        z - 5.0 * hill2(ax - 0.45 * nose.wings, nose.nostril, y - nose.base_y + 1.0, 2.0)
    }

    fn lips(&self, x: f32, y: f32) -> f32 {
        let (mouth, skull, nose) = (&self.person.mouth, &self.person.skull, &self.person.nose);
        let chin_y = skull.chin_y - 15.0;
        let mut z = skull.muzzle * hill2(x, 26.0, y - mouth.y + 2.0, 20.0);
        z += (5.0 + skull.chin_forward) * hill2(x, 15.0, y - chin_y, 11.0);
        z -= skull.chin_cleft * hill2(x, 1.8, y - chin_y, 7.0);
        if (y - mouth.y).abs() > 34.0 || x.abs() > 48.0 {
            return z;
        }
        let x = x - mouth.lean;
        let reach = step(mouth.half_width + 3.0, mouth.half_width * 0.35, x.abs());
        let line = y - mouth_line(self.person, x);
        z += (1.5 + mouth.forward)
            * reach
            * hill(line + 0.5 * mouth.upper, 0.72 * mouth.upper + 1.0);
        z += (1.2 + mouth.forward)
            * reach
            * hill(line - 0.5 * mouth.lower, 0.66 * mouth.lower + 0.8);
        z -= 2.6 * step(mouth.half_width + 2.0, mouth.half_width - 5.0, x.abs()) * hill(line, 1.2);
        z -= 1.8 * hill2(x.abs() - mouth.half_width - 1.0, 3.0, line, 4.0);
        z -= 2.6 * hill2(x, 17.0, line - mouth.lower - 5.5, 5.0);
        let groove = step(nose.base_y, nose.base_y + 4.0, y) * step(-1.0, -5.0, line + mouth.upper);
        z - mouth.philtrum * groove * (hill(x, 2.4) - 0.6 * hill(x.abs() - 5.0, 2.2))
    }

    /// The fold from the wing of the nose to the corner of the mouth.
    fn folds(&self, x: f32, y: f32) -> f32 {
        let depth = 0.5 + 1.8 * self.person.skin.lines[3] + 2.0 * self.expression.smile;
        let (away, _) = fold_distance(self.person, x.abs(), y);
        -depth * hill(away, 2.6) + 0.8 * depth * hill(away - 6.0, 5.0)
    }

    /// What the expression moves, and where to.
    fn moved(&self, x: f32, y: f32) -> Vec3 {
        let Expression { mouth_open, smile, brow } = self.expression;
        let (mouth, brows) = (&self.person.mouth, &self.person.brows);
        let side = x.signum();
        let ax = x.abs();
        let corner = hill2(ax - mouth.half_width, 13.0, y - mouth.y, 12.0);
        let lift = hill2(ax - 40.0, 18.0, y - 32.0, 16.0);
        let mut by = [side * 6.5 * smile * corner, -5.0 * smile * corner - 2.5 * smile * lift, 0.0];
        by[2] += 3.5 * smile * lift - 2.0 * smile * corner;
        by[1] -= 4.5 * brow * hill2(ax - 28.0, 24.0, y + brows.height, 11.0);
        if mouth_open > 0.0 {
            let line = y - mouth_line(self.person, x - mouth.lean);
            let taper = (1.0 - (ax / (mouth.half_width + 0.5)).powi(2)).max(0.0).sqrt();
            let whole = step(75.0, 30.0, ax);
            let share = mix(taper, whole, step(4.0, 34.0, line)) * step(-SEAM, SEAM, line);
            by[1] += DROP * mouth_open * share * step(-2.0, 3.0, line).max(0.35);
            by[2] -= 0.25 * DROP * mouth_open * share;
            by[1] -= 2.0 * mouth_open * taper * step(-14.0, -SEAM, line) * step(SEAM, -SEAM, line);
        }
        by
    }

    /// The surface as a grid; `face_px` decides how fine.
    pub fn mesh(&self, face_px: f32) -> Mesh {
        let size = (face_px * 1.5).clamp(GRID_MIN, GRID_MAX);
        let heights = self.heights(size as usize);
        let beard = self.person.beard.chin.max(self.person.beard.cheeks);
        let mut mesh = Mesh::grid(Material::Face, (size as usize, heights.len()), |u, v| {
            let angle = angle_of(u);
            let row = (v * (heights.len() - 1) as f32).round() as usize;
            let section = self.section(heights[row]);
            let (sin, cos) = angle.sin_cos();
            let depth = if cos > 0.0 { section.front } else { section.back };
            let n = if cos > 0.0 { self.person.skull.flatness } else { 2.2 };
            let mut radius = 0.0;
            if section.wide > 0.01 {
                let sum = (sin.abs() / section.wide).powf(n) + (cos.abs() / depth).powf(n);
                radius = sum.powf(-1.0 / n);
            }
            let (x, y) = (radius * sin, section.y);
            let front = step(-0.05, 0.35, cos);
            if beard > 0.3 && cos > -0.3 {
                let growth = skin::growth(self.person, x, y);
                radius += growth * (2.5 + 1.5 * noise(x * 0.35, y * 0.35, 5));
            }
            let at = self.shaped([radius * sin, y, radius * cos], front);
            let (colour, gloss) = skin::colour(self.person, &self.expression, [x, y], front);
            Vertex { face: [x, y], gloss, ..Vertex::new(at, colour) }
        });
        mesh.find_hollows(size / GRID_MAX);
        for vertex in &mut mesh.vertices {
            // Paint belongs to the front; a point on the back of the head has no place on the face.
            if vertex.at[2] < 0.0 {
                vertex.face = [400.0, 400.0];
            }
        }
        mesh
    }

    /// Heights of the rows: the face gets twice as many as the rest.
    fn heights(&self, rows: usize) -> Vec<f32> {
        let (top, bottom) = (self.sections[0].y, self.sections[self.sections.len() - 1].y);
        let fine: Vec<f32> = (0..=800).map(|i| mix(top, bottom, i as f32 / 800.0)).collect();
        let weight = |y: f32| {
            let ends = 4.0 * hill(y - top, 5.0) + 2.0 * hill(y - bottom, 4.0);
            1.0 + step(-50.0, -30.0, y) + 1.5 * hill(y - self.person.mouth.y, 8.0) + ends
        };
        let total: f32 = fine.iter().map(|y| weight(*y)).sum();
        let (mut heights, mut sum) = (vec![top], 0.0);
        for y in fine {
            sum += weight(y) / total * rows as f32;
            if sum >= heights.len() as f32 {
                heights.push(y);
            }
        }
        heights.push(bottom);
        heights
    }
}

/// The centre of an eye on the neutral face; -1 is the one at the left of the picture.
pub fn eye_centre(person: &Person, side: f32) -> [f32; 2] {
    [side * person.eyes.apart, side * 0.5 * person.eyes.uneven]
}

/// Height of the line between the lips, `x` from the middle of the mouth.
pub fn mouth_line(person: &Person, x: f32) -> f32 {
    let mouth = &person.mouth;
    let out = (x / mouth.half_width).abs().min(1.3);
    mouth.y - mouth.corners * out * out + 0.8 * hill(x, 5.0) - 0.5 * hill(x.abs() - 9.0, 6.0)
}

/// Distance from the fold beside nose and mouth, positive on the side of the cheek, and how far
/// down it.
pub fn fold_distance(person: &Person, ax: f32, y: f32) -> (f32, f32) {
    let from = [person.nose.wings + 3.0, person.nose.base_y - 8.0];
    let to = [person.mouth.half_width + 8.0, person.mouth.y + 1.0];
    let along = [to[0] - from[0], to[1] - from[1]];
    let length = along[0].hypot(along[1]);
    let (dx, dy) = (ax - from[0], y - from[1]);
    let down = (dx * along[0] + dy * along[1]) / (length * length);
    let aside = (dx * along[1] - dy * along[0]) / length - 3.0 * (down * (1.0 - down)).max(-0.5);
    let beyond = (down - down.clamp(0.0, 1.0)) * length;
    (aside.signum() * aside.hypot(1.5 * beyond), down)
}

/// Columns stand closest on the face.
fn angle_of(u: f32) -> f32 {
    let t = 2.0 * u - 1.0;
    1.1 * t + (std::f32::consts::PI - 1.1) * t.powi(5)
}

/// The cross-sections from the crown to under the chin.
fn sections(person: &Person) -> Vec<Section> {
    let skull = &person.skull;
    let mut all = Vec::new();
    let neck = 34.0;
    let equator = -neck;
    for index in 0..=24 {
        let t = index as f32 / 24.0 * std::f32::consts::FRAC_PI_2;
        let (sin, cos) = t.sin_cos();
        let forehead = (91.0 + skull.forehead_forward) * sin.powf(0.8);
        all.push(Section {
            y: equator - (skull.top - neck) * cos,
            wide: skull.cranium * sin.powf(0.9),
            front: forehead,
            back: skull.depth * sin.powf(0.9),
        });
    }
    let middle = skull.jaw_y;
    let low = skull.chin_y;
    let knots = [
        Section {
            y: -18.0,
            wide: mix(skull.cranium, skull.temple, 0.5),
            front: 92.0,
            back: skull.depth,
        },
        Section { y: 0.0, wide: skull.temple, front: 90.0, back: skull.depth - 3.0 },
        Section { y: 22.0, wide: skull.cheek, front: 90.5, back: 84.0 },
        Section { y: 44.0, wide: mix(skull.cheek, skull.jaw, 0.4), front: 91.0, back: 72.0 },
        Section { y: middle, wide: skull.jaw, front: 90.5, back: 55.0 },
        Section {
            y: mix(middle, low, 0.45),
            wide: mix(skull.jaw, skull.chin, 0.45),
            front: 88.0,
            back: 40.0,
        },
        Section { y: low - 10.0, wide: skull.chin, front: 85.0, back: 26.0 },
        Section { y: low - 3.5, wide: skull.chin * 0.78, front: 80.0, back: 20.0 },
        Section { y: low, wide: skull.chin * 0.55, front: 72.0, back: 14.0 },
        Section { y: low + 2.0, wide: skull.chin * 0.3, front: 56.0, back: 8.0 },
        Section { y: low + 2.5, wide: 0.5, front: 4.0, back: 4.0 },
    ];
    all.extend(knots);
    smoothed(&all)
}

/// Twelve sections for each step between two knots, on a curve through the knots whose slope never
/// overshoots.
fn smoothed(knots: &[Section]) -> Vec<Section> {
    let get = |section: &Section, which: usize| [section.wide, section.front, section.back][which];
    let slope = |index: usize, which: usize| {
        if index == 0 || index + 1 == knots.len() {
            return 0.0;
        }
        let (a, b, c) = (&knots[index - 1], &knots[index], &knots[index + 1]);
        let (before, after) = (
            (get(b, which) - get(a, which)) / (b.y - a.y),
            (get(c, which) - get(b, which)) / (c.y - b.y),
        );
        if before * after <= 0.0 { 0.0 } else { 2.0 * before * after / (before + after) }
    };
    let mut all = Vec::new();
    for index in 0..knots.len() - 1 {
        let (a, b) = (&knots[index], &knots[index + 1]);
        let gap = b.y - a.y;
        for part in 0..12 {
            let t = part as f32 / 12.0;
            let value = |which: usize| {
                let (t2, t3) = (t * t, t * t * t);
                (2.0 * t3 - 3.0 * t2 + 1.0) * get(a, which)
                    + (t3 - 2.0 * t2 + t) * gap * slope(index, which)
                    + (3.0 * t2 - 2.0 * t3) * get(b, which)
                    + (t3 - t2) * gap * slope(index + 1, which)
            };
            all.push(Section { y: a.y + gap * t, wide: value(0), front: value(1), back: value(2) });
        }
    }
    all.push(knots[knots.len() - 1]);
    all
}
