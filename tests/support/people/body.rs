//! What belongs to a person beside the head: ears, neck, shoulders with their clothes.

use crate::people::head::Head;
use crate::people::maths::{Vec3, clouds, hill, hill2, mix, mix3, noise, scale, step, times};
use crate::people::mesh::{Material, Mesh, Vertex};
use crate::people::traits::{Person, Style};

/// Both ears, or none under long hair.
pub fn ears(head: &Head<'_>) -> Vec<Mesh> {
    if head.person.hair.style == Style::Long {
        return Vec::new();
    }
    [-1.0, 1.0].map(|side| ear(head, side)).into()
}

fn ear(head: &Head<'_>, side: f32) -> Mesh {
    let person = head.person;
    let skull = &person.skull;
    let wide = head.section(12.0).wide;
    let flare = (14.0 + 2.6 * skull.ear_out).to_radians();
    let (sin, cos) = flare.sin_cos();
    let skin = &person.skin;
    Mesh::grid(Material::Skin, (40, 40), |u, v| {
        let (long, lat) = (u * std::f32::consts::TAU, v * std::f32::consts::PI);
        // Seen from the side: a narrower lobe below, and a bowl in the middle.
        let (out, up, back) = (lat.sin() * long.cos(), -lat.cos(), lat.sin() * long.sin());
        let narrow = 1.0 - 0.28 * step(-0.1, 1.0, up);
        let bowl = hill2(back - 0.1, 0.45, up - 0.05, 0.5);
        let groove = hill((back * back + up * up).sqrt() - 0.72, 0.09) * step(0.6, 0.1, up);
        let x = 4.5 * out - if out > 0.0 { 5.5 * bowl + 1.8 * groove } else { 0.0 };
        let (y, z) = (skull.ear * up, -16.5 * narrow * back * 1.0);
        let (x, z) = (x * cos - z * sin, x * sin + z * cos);
        let at = [side * (wide - 3.0 + x + 13.0 * sin), 12.0 + y, z - 10.0];
        let dark = if out > 0.0 { 0.62 * bowl + 0.35 * groove } else { 0.0 };
        let red = times(skin.tone, [1.0, 0.84, 0.82]);
        let mottle = 1.0 + 0.10 * noise(10.0 * u, 10.0 * v, skin.seed ^ 0x3D);
        Vertex { gloss: 0.3, ..Vertex::new(at, scale(red, mottle * (1.0 - dark))) }
    })
    .facing_out()
}

/// Neck and shoulders, in the coordinates of a head that looks straight ahead.
pub fn trunk(person: &Person) -> Vec<Mesh> {
    vec![neck(person), shoulders(person)]
}

/// Where the head turns on the neck.
pub fn pivot(person: &Person) -> Vec3 {
    [0.0, person.skull.chin_y - 10.0, -22.0]
}

fn neck(person: &Person) -> Mesh {
    let skin = &person.skin;
    let (top, bottom) = (40.0, person.skull.chin_y + 78.0);
    Mesh::grid(Material::Skin, (60, 40), |u, v| {
        let (sin, cos) = (std::f32::consts::PI * (2.0 * u - 1.0)).sin_cos();
        let y = mix(top, bottom, v);
        let flare = 1.0 + 0.2 * step(0.55, 1.0, v);
        let apple = 3.0 * person.beard.shadow.min(0.5) * hill2(sin, 0.2, v - 0.62, 0.1);
        let cords = 2.0 * hill(sin.abs() - 0.25 - 0.5 * (1.0 - v), 0.13);
        let x = person.skull.neck * flare * sin;
        let z = -31.0 + (person.skull.neck * 0.92 * flare + apple + cords) * cos;
        let mottle = 1.0 + 0.12 * clouds(x * 0.08, y * 0.08, 3, skin.seed ^ 0x3E);
        let ring = 0.10 * hill(v - 0.55 - 0.03 * sin, 0.012) + 0.08 * hill(v - 0.7, 0.01);
        Vertex::new([x, y, z], scale(skin.tone, 0.93 * mottle * (1.0 - ring)))
    })
}

fn shoulders(person: &Person) -> Mesh {
    let clothes = &person.clothes;
    let base = person.skull.chin_y + 32.0;
    let broad = 120.0 + 1.6 * person.skull.neck;
    let mut mesh = Mesh::grid(Material::Cloth, (90, 70), |u, v| {
        let (sin, cos) = (std::f32::consts::PI * (2.0 * u - 1.0)).sin_cos();
        let y = base + 260.0 * v * v.sqrt();
        let fall = step(0.0, 0.42, v);
        let wide = mix(person.skull.neck + 4.0, broad, fall.powf(0.8));
        let deep = mix(person.skull.neck + 2.0, 105.0, step(0.0, 0.55, v));
        // Square shoulders: an ellipse with its corners filled.
        let radius = ((sin.abs()).powf(2.6) + (cos.abs()).powf(2.6)).powf(-1.0 / 2.6);
        let (x, z) = (wide * sin * radius, -32.0 + deep * cos * radius);
        let folds = 3.0 * noise(x * 0.03 + y * 0.02, y * 0.035, 63) * fall;
        let is_front = cos > 0.0;
        let open = y - base - clothes.neck_line.max(-8.0) + 0.75 * x.abs();
        let bare = if is_front && clothes.neck_line > 0.0 { step(4.0, -4.0, open) } else { 0.0 };
        let mut colour = clothes.colour;
        if clothes.stripes > 0.0 {
            let wave = (y / clothes.stripes).fract();
            colour = mix3(colour, clothes.second, step(0.45, 0.55, wave) * step(1.0, 0.9, wave));
        }
        let weave = 1.0 + 0.12 * clouds(x * 0.09, y * 0.09, 3, 64);
        let seam = 0.35 * hill(open, 2.2) * if is_front { 1.0 } else { 0.0 };
        colour = scale(colour, weave * (1.0 - seam));
        colour = mix3(colour, scale(person.skin.tone, 0.95), bare);
        Vertex { gloss: 0.05, ..Vertex::new([x, y, z + folds], colour) }
    });
    mesh.throws_shadow = false;
    if clothes.neck_line < 0.0 {
        // A high collar stands around the neck.
        for vertex in &mut mesh.vertices[..90] {
            vertex.at[1] += clothes.neck_line;
        }
    }
    mesh
}
