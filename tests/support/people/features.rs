//! Eyes, brows and lips: painted on the face at the sharpness of the picture, since a millimetre
//! here decides what a network sees.

use crate::people::Shot;
use crate::people::head::{SEAM, eye_centre, mouth_line};
use crate::people::maths::{
    Vec3, hill, hill2, light_of, mix, mix3, noise, scale, step, times, unit,
};
use crate::people::traits::Person;

/// What paint does to a place of the skin.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    pub colour: Vec3,
    pub gloss: f32,
    /// Another surface than the skin, in the head's own directions: the eyeball.
    pub normal: Option<Vec3>,
    /// Factor on all light, for what lies deep or under lashes.
    pub open: f32,
    /// Light added whatever falls on it: the reflection of a window in the eye.
    pub glint: f32,
}

/// Paints brows, eyes and lips over the skin at a place of the neutral face.
pub fn paint(person: &Person, shot: &Shot, [x, y]: [f32; 2], under: Paint) -> Paint {
    let mut paint = under;
    if y > -48.0 && y < 26.0 && x.abs() < 66.0 {
        brow(person, [x, y], &mut paint);
        eye(person, shot, [x, y], &mut paint);
    }
    let mouth = &person.mouth;
    if (y - mouth.y).abs() < 24.0 && x.abs() < mouth.half_width + 12.0 {
        lips(person, shot, [x - mouth.lean, y], &mut paint);
    }
    paint
}

fn brow(person: &Person, [x, y]: [f32; 2], paint: &mut Paint) {
    let brows = &person.brows;
    let ax = x.abs();
    let t = (ax - brows.inner) / (brows.outer - brows.inner);
    if !(-0.15..1.15).contains(&t) {
        return;
    }
    let shape = (t.max(0.0).powf(1.4) * std::f32::consts::PI).sin();
    let tail = 5.0 * step(0.55, 1.1, t);
    let centre = -brows.height - brows.arch * shape
        + brows.slope * (0.5 - t) * 2.0
        + tail
        + 0.5 * x.signum() * brows.uneven;
    let thick = brows.thick * (1.05 - 0.75 * t.clamp(0.0, 1.0).powi(3)) * step(-0.14, 0.12, t);
    let off = (y - centre) / thick.max(0.3);
    // Strands lean outwards: noise that is long along them.
    let lean = mix(1.2, -0.5, t.clamp(0.0, 1.0));
    let strands =
        noise(ax * 1.25 + (y - centre) * lean, (y - centre) * 0.45, 31 + person.skin.seed);
    let edge = step(1.25 + 0.3 * strands, 0.45 + 0.3 * strands, off.abs()) * step(1.12, 0.92, t);
    let cover = (edge * brows.density * (0.85 + 0.35 * strands)).clamp(0.0, 1.0);
    paint.colour = mix3(paint.colour, scale(brows.colour, 1.0 + 0.3 * strands), cover);
    paint.gloss *= 1.0 - cover;
}

/// Place in the opening of an eye: -1 inner corner to 1 outer, and millimetres down; the heights
/// of both lids there.
struct Opening {
    along: f32,
    down: f32,
    upper: f32,
    lower: f32,
}

fn opening(person: &Person, shot: &Shot, side: f32, [x, y]: [f32; 2]) -> Opening {
    let eyes = &person.eyes;
    let [ex, ey] = eye_centre(person, side);
    let (dx, dy) = (side * (x - ex), y - ey);
    let (sin, cos) = eyes.slant.to_radians().sin_cos();
    // Turned so that the corners are level; `along` grows outwards.
    let (out, down) = (dx * cos - dy * sin, dx * sin + dy * cos);
    let along = out / eyes.half_width;
    let arch = |peak: f32, power: f32| {
        let shifted = if along < peak {
            (along - peak) / (1.0 + peak)
        } else {
            (along - peak) / (1.0 - peak)
        };
        1.0 - shifted.abs().min(1.0).powf(power)
    };
    let open = 1.0 - shot.eyes_closed.clamp(0.0, 1.0);
    let smile = shot.expression.smile;
    let widen = 1.0 + 0.18 * shot.expression.brow;
    let lower = eyes.lower * arch(0.18, 2.0) * (1.0 - 0.28 * smile);
    let raised = eyes.upper * widen * (1.0 - 0.10 * smile) * arch(eyes.peak, 2.2);
    let upper = mix(0.78 * lower, -raised, open);
    Opening { along, down, upper, lower: mix(0.85 * lower, lower, open) }
}

fn eye(person: &Person, shot: &Shot, place: [f32; 2], paint: &mut Paint) {
    let eyes = &person.eyes;
    let side = if place[0] < 0.0 { -1.0 } else { 1.0 };
    let seen = opening(person, shot, side, place);
    let Opening { along, down, upper, lower } = seen;
    if along.abs() > 1.5 {
        return;
    }
    let inside = step(upper - 0.25, upper + 0.25, down)
        * step(lower + 0.25, lower - 0.25, down)
        * step(1.02, 0.97, along.abs());
    let reach = step(1.22, 0.9, along.abs());
    lid(person, &seen, reach, paint);
    if inside > 0.01 && shot.eyes_closed < 0.97 {
        let ball = eyeball(person, shot, side, place);
        let under = step(upper - 0.5, upper + 3.2, down);
        let mut colour = scale(ball.colour, mix(0.34, 1.0, under));
        // The pink corner next to the nose.
        let corner = step(-0.72, -0.95, along);
        colour = mix3(colour, times(person.skin.tone, [0.85, 0.52, 0.50]), 0.85 * corner);
        paint.colour = mix3(paint.colour, colour, inside);
        paint.gloss = mix(paint.gloss, 0.9, inside);
        paint.glint = inside * ball.glint * under;
        paint.open = mix(paint.open, 0.92, inside);
        if inside > 0.5 {
            paint.normal = ball.normal;
        }
    }
    // Lashes are drawn over both.
    let root = if along.abs() < 1.1 { reach } else { 0.0 };
    let outer = 0.75 + 0.5 * step(-0.5, 0.9, along);
    let tufts = 0.8 + 0.4 * noise(along * 17.0, down * 0.6, 77 + person.skin.seed);
    let lash =
        root * step(1.2 * eyes.lashes * outer + 0.5, 0.0, (down - upper + 0.25).abs()) * tufts;
    let dark = mix3(person.brows.colour, light_of(18.0, 14.0, 13.0), 0.75);
    let cover = ((0.55 + 0.4 * eyes.lashes) * lash
        + 0.8 * eyes.liner * root * hill(down - upper + 0.6, 0.9))
    .min(0.97);
    paint.colour = mix3(paint.colour, dark, cover);
    paint.glint *= 1.0 - cover;
    let below = root * hill(down - lower - 0.2, 0.55) * (0.28 + 0.3 * eyes.lashes) * tufts;
    paint.colour = mix3(paint.colour, mix3(dark, paint.colour, 0.3), (0.8 * below).min(1.0));
}

/// The crease over the lid and the rim under the eye.
fn lid(person: &Person, seen: &Opening, reach: f32, paint: &mut Paint) {
    let eyes = &person.eyes;
    let Opening { along, down, upper, lower } = *seen;
    let fixed = -eyes.upper * (1.0 - (along * 0.9).abs().min(1.0).powf(2.2));
    // A closing lid takes skin from the fold: the crease stays near where it was.
    let crease = mix(upper, fixed, 0.8) - eyes.crease;
    let fold = eyes.crease_depth * hill(down - crease, 0.95) * reach;
    let shade = 0.5 * fold + 0.22 * eyes.crease_depth * hill(down - crease + 1.4, 2.6) * reach;
    paint.colour = scale(paint.colour, 1.0 - shade.min(0.8));
    let rim = hill(down - lower - 0.7, 0.7) * reach;
    paint.colour = mix3(paint.colour, times(paint.colour, [1.02, 0.86, 0.84]), 0.8 * rim);
    paint.colour = scale(paint.colour, 1.0 - 0.14 * hill(down - lower - 4.2, 1.3) * reach);
}

fn eyeball(person: &Person, shot: &Shot, side: f32, [x, y]: [f32; 2]) -> Paint {
    let eyes = &person.eyes;
    let [ex, ey] = eye_centre(person, side);
    let [gaze_x, gaze_y] = shot.gaze;
    let (dx, dy) = (x - ex, y - ey + 0.4);
    let white = times(light_of(226.0, 218.0, 212.0), [1.0, 0.985, 0.96]);
    let veins = 0.05 * noise(dx * 0.5, dy * 0.9, person.skin.seed ^ 0x15);
    let far = (dx / eyes.half_width).abs();
    let mut colour = scale(white, 0.66 - 0.2 * far + veins);
    let (ix, iy) = (dx - 5.0 * gaze_x, dy - 4.0 * gaze_y);
    let radius = ix.hypot(iy);
    let rim = eyes.iris_radius;
    let angle = iy.atan2(ix);
    let rays = 0.22 * noise(angle * 6.0, radius * 0.7, person.skin.seed ^ 0x16);
    let mut iris = scale(
        eyes.iris,
        1.05 + rays + 0.5 * step(0.2, 1.0, iy / rim) + 0.25 * hill(radius - 3.2, 1.0),
    );
    iris = scale(iris, 1.0 - 0.62 * step(rim - 1.5, rim - 0.2, radius));
    colour = mix3(colour, iris, step(rim + 0.35, rim - 0.35, radius));
    colour = mix3(colour, [0.004; 3], step(2.5, 1.9, radius));
    // A window's reflection, on the side that the light comes from.
    let [lx, ly, _] = shot.light.direction();
    let spot = hill2(ix - 2.6 * lx - 0.3, 0.95, iy - 2.3 * ly, 0.95);
    let normal = unit([0.8 * dx / 12.0, 0.8 * dy / 12.0, 1.0]);
    Paint {
        colour,
        gloss: 0.9,
        normal: Some(normal),
        open: 1.0,
        glint: 0.75 * step(0.3, 0.7, spot),
    }
}

fn lips(person: &Person, shot: &Shot, [x, y]: [f32; 2], paint: &mut Paint) {
    let mouth = &person.mouth;
    let out = x.abs() / mouth.half_width;
    let line = y - mouth_line(person, x);
    let full = (1.0 - out * out).max(0.0);
    let bow = 1.0 + mouth.bow / mouth.upper * (0.7 * hill(x.abs() - 6.5, 4.5) - 0.9 * hill(x, 3.0));
    let thin = 1.0 - 0.2 * shot.expression.smile;
    let upper = mouth.upper * full.powf(0.75) * bow * thin;
    let lower = mouth.lower * full.powf(0.55) * (1.0 - 0.12 * hill(x, 4.0)) * thin;
    let soft = 0.7;
    let on_upper = step(-upper - soft, -upper + soft, line) * step(soft, -soft, line);
    let on_lower = step(lower + soft, lower - soft, line) * step(-soft, soft, line);
    let inside = step(1.03, 0.97, out);
    let chaps = 1.0 + 0.10 * noise(x * 1.1, line * 0.3, person.skin.seed ^ 0x29);
    let lip = scale(mouth.colour, chaps);
    paint.colour = mix3(paint.colour, scale(lip, 0.86), 0.95 * on_upper * inside);
    paint.colour = mix3(paint.colour, lip, 0.95 * on_lower * inside);
    paint.gloss = mix(paint.gloss, 0.75, on_lower * inside);
    // Closed, the lips meet in a dark line; open, the seam is the inside of the mouth.
    let open = shot.expression.mouth_open.max(0.0);
    if open > 0.02 && line.abs() < SEAM && out < 1.0 {
        let down = (line + SEAM) / (2.0 * SEAM);
        paint.colour = inside_of_mouth(person, x, down, open);
        paint.open = 0.5;
        paint.gloss = 0.25;
    } else {
        let corner = 0.55 + 0.45 * step(0.6, 1.0, out);
        let dark = 0.85 * hill(line, 0.9) * step(1.1, 0.97, out) * corner.max(0.8);
        paint.colour = mix3(paint.colour, scale(times(mouth.colour, [0.5, 0.35, 0.35]), 0.5), dark);
        let pit = hill2(x.abs() - mouth.half_width - 0.5, 1.8, line, 1.8);
        paint.colour = scale(paint.colour, 1.0 - 0.3 * pit);
    }
}

/// Upper teeth, dark, tongue; `down` is 0 at the upper lip and 1 at the lower one.
fn inside_of_mouth(person: &Person, x: f32, down: f32, open: f32) -> Vec3 {
    let out = x.abs() / person.mouth.half_width;
    let gum = scale(person.mouth.colour, 0.22);
    let teeth = light_of(222.0, 212.0, 194.0);
    let gap = (x / 4.2 + 0.5).fract();
    let gap = hill(gap.min(1.0 - gap) * 4.2, 0.25);
    let reach = (0.62 - 0.35 * open).max(0.24) * (1.0 - 0.35 * out);
    let on_teeth = step(reach + 0.06, reach - 0.06, down) * step(0.92, 0.75, out);
    let shade = (1.0 - 0.45 * gap) * (0.9 - 0.45 * out) * step(-0.25, 0.15, down);
    let deep = mix3([0.012, 0.005, 0.005], scale(gum, 1.4), step(0.6, 1.0, down));
    mix3(deep, scale(teeth, shade), on_teeth)
}
