//! What is behind a person: out of focus, and without anything that looks like a face.

use crate::people::Background;
use crate::people::maths::{Random, Vec3, clouds, light_of, mix, mix3, scale, step};

/// A thing behind the person: left, top, right, bottom (shares of the picture), colour, softness.
struct Thing {
    edges: [f32; 4],
    colour: Vec3,
    soft: f32,
}

/// Pixels between two places that are computed; what is between them is out of focus anyway.
const COARSE: usize = 3;

/// Light at every pixel of a picture.
pub fn draw(kind: &Background, [width, height]: [usize; 2]) -> Vec<Vec3> {
    let coarse = [width / COARSE + 2, height / COARSE + 2];
    let few = draw_coarse(kind, coarse);
    let place = |pixel: usize| {
        let at = pixel as f32 / COARSE as f32;
        (at as usize, at.fract())
    };
    let mut light = Vec::with_capacity(width * height);
    for row in 0..height {
        let (top, down) = place(row);
        let (upper, lower) = (&few[top * coarse[0]..], &few[(top + 1) * coarse[0]..]);
        for column in 0..width {
            let (left, along) = place(column);
            let above = mix3(upper[left], upper[left + 1], along);
            light.push(mix3(above, mix3(lower[left], lower[left + 1], along), down));
        }
    }
    light
}

fn draw_coarse(kind: &Background, [width, height]: [usize; 2]) -> Vec<Vec3> {
    let (base, things, seed) = plan(kind);
    let aspect = width as f32 / height as f32;
    let mut light = Vec::with_capacity(width * height);
    for row in 0..height {
        let y = (row as f32 + 0.5) / height as f32;
        for column in 0..width {
            let x = (column as f32 + 0.5) / width as f32;
            let fall = 0.82 + 0.3 * (1.0 - y) + 0.12 * (0.5 - x);
            let grain = 0.16 * clouds(x * 3.0 * aspect, y * 3.0, 4, seed);
            let mut colour = scale(mix3(base[0], base[1], step(0.2, 0.9, y)), fall + grain);
            for thing in &things {
                let Thing { edges: [left, top, right, bottom], colour: own, soft } = thing;
                let cover = step(left - soft, left + soft, x)
                    * step(right + soft, right - soft, x)
                    * step(top - soft, top + soft, y)
                    * step(bottom + soft, bottom - soft, y);
                colour = mix3(colour, scale(*own, 1.0 + grain), cover);
            }
            light.push(colour);
        }
    }
    light
}

fn plan(kind: &Background) -> ([Vec3; 2], Vec<Thing>, u32) {
    match *kind {
        Background::Plain(shade) => {
            let tone =
                light_of(mix(30.0, 235.0, shade), mix(32.0, 234.0, shade), mix(36.0, 230.0, shade));
            ([tone, scale(tone, 0.9)], Vec::new(), 1)
        }
        Background::Room(seed) => room(seed),
        Background::Outdoors(seed) => outdoors(seed),
    }
}

fn room(seed: u64) -> ([Vec3; 2], Vec<Thing>, u32) {
    let mut random = Random::new(seed ^ 0x51);
    let r = &mut random;
    let wall = scale(tone(r, 0.25), r.between(0.5, 1.0));
    let mut things = Vec::new();
    for _ in 0..2 + r.below(6) {
        let (x, y) = (r.between(-0.1, 1.0), r.between(-0.2, 0.9));
        let edges = [x, y, x + r.between(0.04, 0.4), y + r.between(0.08, 0.7)];
        let colour = scale(tone(r, 0.8), r.between(0.1, 1.0));
        things.push(Thing { edges, colour, soft: r.between(0.003, 0.03) });
    }
    if r.chance(0.35) {
        let x = r.between(-0.1, 0.8);
        let edges = [x, -0.1, x + r.between(0.15, 0.4), r.between(0.3, 0.7)];
        things.push(Thing { edges, colour: [1.0, 1.02, 1.05], soft: 0.012 });
    }
    ([wall, scale(wall, 0.75)], things, seed as u32 ^ 0x77)
}

fn outdoors(seed: u64) -> ([Vec3; 2], Vec<Thing>, u32) {
    let mut random = Random::new(seed ^ 0x52);
    let r = &mut random;
    let sky = mix3([0.55, 0.70, 0.95], [0.8, 0.8, 0.8], r.uniform());
    let ground = mix3([0.16, 0.24, 0.09], [0.30, 0.29, 0.27], r.uniform());
    let mut things = Vec::new();
    for _ in 0..5 + r.below(9) {
        let (x, y) = (r.between(-0.2, 1.0), r.between(0.05, 0.7));
        let green = mix3([0.10, 0.20, 0.05], [0.35, 0.33, 0.30], r.uniform());
        let edges = [x, y, x + r.between(0.05, 0.35), 1.2];
        things.push(Thing {
            edges,
            colour: scale(green, r.between(0.3, 1.2)),
            soft: r.between(0.01, 0.07),
        });
    }
    ([sky, ground], things, seed as u32 ^ 0x78)
}

/// A colour; `strong` 0 is grey.
fn tone(r: &mut Random, strong: f32) -> Vec3 {
    let grey = r.between(0.15, 0.8);
    [0, 1, 2].map(|_| (grey * (1.0 + strong * r.between(-0.6, 0.6))).max(0.01))
}
