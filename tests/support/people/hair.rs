//! Hair: a shell over the skull that begins at the hairline and ends where the style has it end.

use std::f32::consts::PI;

use crate::people::head::Head;
use crate::people::maths::{Vec3, add, clouds, hill, mix, mix3, noise, scale, step, unit};
use crate::people::mesh::{Material, Mesh, Vertex};
use crate::people::traits::{Hair, Style};

/// Height over which the shell rises from the hairline to its full thickness, millimetres.
const RISE: f32 = 20.0;
const RISE_OF_FRINGE: f32 = 7.0;
/// The middle of the cranium, from which hair grows outwards.
const MIDDLE_Y: f32 = -34.0;

/// The surfaces of a person's hair.
pub fn meshes(head: &Head<'_>, face_px: f32) -> Vec<Mesh> {
    let hair = &head.person.hair;
    if hair.style == Style::Bald {
        return Vec::new();
    }
    let size = (face_px * 1.4).clamp(90.0, 250.0) as usize;
    let bottom = (0..=40).map(|i| line(hair, i as f32 / 40.0 * PI)).fold(0.0, f32::max) + 4.0;
    let top = -head.person.skull.top;
    let mut shell = Mesh::grid(Material::Hair, (size, size), |u, v| {
        let t = 2.0 * u - 1.0;
        let angle = PI * (0.6 * t + 0.4 * t * t * t);
        // More rows where the crown curves.
        let y = mix(top, bottom, 0.3 * v * v + 0.7 * v);
        strand(head, angle, y, bottom)
    });
    shell.is_frayed = true;
    shell.find_hollows(size as f32 / 250.0);
    let mut all = vec![shell];
    if hair.style == Style::Tied {
        all.push(knot(head));
    }
    all
}

/// Lowest place of hair at an angle around the head, 0 in front.
fn line(hair: &Hair, angle: f32) -> f32 {
    let at = angle.abs();
    let front = -hair.line + hair.peak * hill(at, 0.16);
    let fringed = hair.style == Style::Fringe;
    let front = if fringed { -25.0 - 0.12 * (hair.line - 58.0) } else { front };
    let temple = if fringed { -24.0 } else { -hair.line - hair.recede + 6.0 };
    let over_ear = if hair.style == Style::Round { -2.0 } else { -12.0 };
    let knots = [
        (0.0, front),
        (0.34, mix(front, temple, 0.35)),
        (0.62, temple),
        (0.98, -24.0),
        (1.22, hair.burns.max(-12.0)),
        (1.44, hair.burns),
        (1.66, over_ear),
        (1.98, over_ear + 6.0),
        (2.3, 42.0),
        (PI, 66.0),
    ];
    let next = knots.partition_point(|(knot, _)| *knot < at).clamp(1, knots.len() - 1);
    let ((a, low), (b, high)) = (knots[next - 1], knots[next]);
    let short = mix(low, high, step(a, b, at));
    if hair.style != Style::Long {
        return short;
    }
    let edge = long_edge(hair);
    mix(short, hair.length, step(edge - 0.1, edge + 0.14, at))
}

/// Angle from which long hair hangs.
fn long_edge(hair: &Hair) -> f32 {
    1.12 + 0.22 * hair.sweep
}

fn thickness(hair: &Hair, angle: f32, y: f32) -> f32 {
    let high = step(10.0, -70.0, y);
    let at = angle.abs();
    let full = mix(hair.thick_side, hair.thick_top, high);
    match hair.style {
        Style::Bald => 0.0,
        Style::Shaved => 1.3,
        Style::Short => 0.6 * full + 1.5,
        Style::Swept => full * (0.7 + 0.7 * hill(at, 0.9) * high),
        Style::Fringe => 0.7 * full + 2.0,
        Style::Round => 1.5 * full + 11.0,
        Style::Long => 0.75 * full + 4.0 + 5.0 * step(-20.0, 60.0, y),
        Style::Tied => 0.25 * full + 1.5,
    }
}

fn strand(head: &Head<'_>, angle: f32, y: f32, bottom: f32) -> Vertex {
    let person = head.person;
    let hair = &person.hair;
    let mut section = head.section(y);
    if y > -10.0 {
        // Below the temples hair hangs down; it does not follow the jaw.
        let level = head.section(-10.0);
        let hang = if hair.style == Style::Long { 1.0 } else { 0.35 };
        section.wide = mix(section.wide, level.wide, hang).max(section.wide);
        section.back = mix(section.back, level.back - 0.12 * (y + 10.0), hang);
        section.front = mix(section.front, level.front, hang);
    }
    let (sin, cos) = angle.sin_cos();
    let depth = if cos > 0.0 { section.front } else { section.back };
    let n = if cos > 0.0 { person.skull.flatness } else { 2.2 };
    let radius = if section.wide < 0.01 {
        0.0
    } else {
        ((sin.abs() / section.wide).powf(n) + (cos.abs() / depth.max(1.0)).powf(n)).powf(-1.0 / n)
    };
    let base = [radius * sin, y, radius * cos];
    let out = unit([base[0], (y - MIDDLE_Y).min(0.0), base[2]]);
    // Strands: long along the fall of the hair, which starts at the parting.
    let flow = angle * 30.0 + 0.10 * y * hair.sweep + 2.0 * noise(angle * 2.0, y * 0.03, hair.seed);
    let fine = noise(flow * 1.5, y * 0.035, hair.seed ^ 1)
        + 0.6 * noise(flow * 3.7, y * 0.06, hair.seed ^ 2);
    let locks = noise(flow * 0.33, y * 0.018, hair.seed ^ 3);
    let curls = clouds(base[0] * 0.11 + angle, y * 0.11 + base[2] * 0.05, 3, hair.seed ^ 4);
    let smooth = 1.0 - hair.curl;
    let inside = line(hair, angle) + 3.5 * fine * smooth.max(0.4) + 5.0 * hair.curl * curls - y;
    let rise = if hair.style == Style::Fringe && cos > 0.6 { RISE_OF_FRINGE } else { RISE };
    let grown = (inside / rise).clamp(0.0, 1.0).sqrt();
    let bumps = 1.0 + 0.13 * locks * smooth + 0.07 * fine * smooth + 0.55 * hair.curl * curls;
    let mut thick = thickness(hair, angle, y) * grown * bumps;
    // The parting is a valley on the crown.
    let parting = hill(base[0] - hair.parting, 4.0) * step(-70.0, -92.0, y) * step(-0.2, 0.3, cos);
    thick *= 1.0 - 0.5 * parting;
    let lift = 0.4 - 2.0 * (1.0 - step(-6.0, 2.0, inside));
    let at: Vec3 = add(base, scale(out, thick + lift));
    let tips = step(bottom - 6.0, bottom - 26.0, y);
    let tone =
        1.0 + 0.42 * fine * smooth + 0.25 * locks + 0.75 * hair.curl * curls - 0.35 * parting;
    let colour = scale(hair.colour, tone.max(0.15) * mix(0.75, 1.0, grown));
    // Shaved hair is a shadow on the skin that ends softly.
    let is_shaved = hair.style == Style::Shaved;
    let stubble = (0.72 + 0.2 * fine) * step(-3.0, 14.0, inside);
    let colour = if is_shaved { mix3(person.skin.tone, colour, stubble) } else { colour };
    let cover = match hair.style {
        Style::Long => step(-1.5, 5.0, inside) * tips.max(0.25),
        _ => step(-1.5, 5.5, inside),
    };
    Vertex { gloss: mix(0.55, 0.15, hair.curl), cover, ..Vertex::new(at, colour) }
}

/// Tied hair: a knot on the crown.
fn knot(head: &Head<'_>) -> Mesh {
    let hair = &head.person.hair;
    let top = -head.person.skull.top;
    let radius = 17.0 + 0.5 * hair.thick_side;
    let (from, to) = ([-6.0, top - 4.0, -38.0], [6.0, top - 10.0, -34.0]);
    Mesh::bar(Material::Hair, [(from, radius), (to, radius)], |u, v| {
        scale(hair.colour, 1.0 + 0.4 * noise(v * 30.0 + 6.0 * u, u * 5.0, hair.seed ^ 6))
    })
}
