//! Light on surfaces, and the way from light to the numbers of a picture.

use crate::people::Light;
use crate::people::maths::{Vec3, add, dot, mix3, scale, step, times, unit};
use crate::people::mesh::Material;
use crate::people::raster::Shadows;

/// A lit place: what the surface is there.
pub struct Place {
    pub material: Material,
    pub at: Vec3,
    pub normal: Vec3,
    pub colour: Vec3,
    pub gloss: f32,
    pub open: f32,
    pub glint: f32,
}

/// How far light runs on past the edge of its reach, by colour: red goes deepest into skin.
const SKIN_WRAP: Vec3 = [0.36, 0.20, 0.15];
const CLOTH_WRAP: Vec3 = [0.12; 3];
const HAIR_WRAP: Vec3 = [0.35; 3];

/// The light that leaves a place towards the camera.
pub fn shade(place: &Place, light: &Light, shadows: &Shadows) -> Vec3 {
    let key = light.direction();
    let towards = [0.0, 0.0, 1.0];
    let wrap = match place.material {
        Material::Face | Material::Skin => SKIN_WRAP,
        Material::Hair => HAIR_WRAP,
        Material::Cloth | Material::Polished => CLOTH_WRAP,
    };
    let facing = dot(place.normal, key);
    let lit = shadows.light_at(add(place.at, scale(place.normal, 2.0)));
    let warm = light.colour;
    // Above is the ceiling or the sky, below the floor, and some comes from the camera's side.
    let up = 0.5 - 0.5 * place.normal[1];
    let around = mix3([0.62, 0.56, 0.52], [1.0, 1.0, 1.02], up);
    let around = scale(around, light.ambient * (0.72 + 0.28 * place.normal[2].max(0.0)));
    // Light between neighbouring parts of skin is reddened by them.
    let open = place.open;
    let hollow = if wrap == SKIN_WRAP {
        [open.powf(0.75), open.powf(1.1), open.powf(1.2)]
    } else {
        [open; 3]
    };
    let mut sum = times(around, hollow);
    for channel in 0..3 {
        let reach = wrap[channel];
        let direct = ((facing + reach) / (1.0 + reach)).max(0.0);
        let soft = if reach > 0.3 { 0.12 } else { 0.04 };
        let through = lit.max(soft * (1.0 - lit));
        sum[channel] += light.strength * warm[channel] * direct * through * (0.35 + 0.65 * open);
        // A wall on the other side gives some of it back.
        let back = dot(place.normal, unit([-key[0], 0.25, 0.6])).max(0.0);
        sum[channel] += 0.13 * light.strength * back * open;
    }
    let mut out = times(place.colour, sum);
    let half = unit(add(key, towards));
    let glance = dot(place.normal, half).max(0.0);
    let edge = (1.0 - place.normal[2].clamp(0.0, 1.0)).powi(4);
    let shine = match place.material {
        Material::Face | Material::Skin => {
            0.055 * glance.powi(14) + 0.05 * glance.powi(50) + 0.06 * edge
        }
        Material::Hair => 0.05 * glance.powi(9) + 0.04 * glance.powi(30),
        Material::Cloth => 0.01 * glance.powi(6),
        Material::Polished => 0.25 * glance.powi(60) + 0.25 * edge,
    };
    let bright = place.gloss * shine * lit * light.strength * open;
    out = add(out, scale(warm, bright));
    add(out, scale(warm, place.glint * (0.35 * light.strength + 0.35 * light.ambient)))
}

/// Steps of the table of a camera's curve, over light 0 to [`CURVE_END`]; finer where it is steep,
/// since the table goes by the root of the light.
const CURVE_STEPS: usize = 2048;
const CURVE_END: f32 = 4.0;

/// The curve of a camera, as a table: three powers a pixel would take a tenth of the time of a
/// picture.
pub struct Curve(Vec<f32>);

impl Curve {
    pub fn new() -> Self {
        let light = |step: usize| (step as f32 / CURVE_STEPS as f32).powi(2) * CURVE_END;
        Self((0..=CURVE_STEPS).map(|step| to_screen(light(step))).collect())
    }

    /// Light as a number of the picture, 0 to 255.
    pub fn level(&self, light: f32) -> f32 {
        let place = (light.clamp(0.0, CURVE_END) / CURVE_END).sqrt() * CURVE_STEPS as f32;
        self.0[place.round() as usize]
    }
}

/// Bright light is compressed as cameras do.
fn to_screen(light: f32) -> f32 {
    let light = light.max(0.0);
    let held = if light > 0.7 { 0.7 + 0.3 * (1.0 - (-(light - 0.7) / 0.3).exp()) } else { light };
    255.0 * held.powf(1.0 / 2.2)
}

/// The colour of light of a lamp: -1 bluish, 0 white, 1 like a bulb.
pub fn tint(warmth: f32) -> Vec3 {
    let warm = step(0.0, 1.0, warmth);
    let cold = step(0.0, -1.0, warmth);
    mix3(mix3([1.0; 3], [1.12, 0.97, 0.74], warm), [0.88, 0.99, 1.14], cold)
}
