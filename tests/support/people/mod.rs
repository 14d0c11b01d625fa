//! Pictures of people who do not exist, for tests, the demo and the documentation.
//!
//! [`Person::new`] makes a person of a number, [`Shot`] says how they are photographed, [`render`]
//! draws one or several of them and says where their faces are. The same arguments give the same
//! bytes on one machine; another processor's sine may differ in the last digit and so a value of a
//! pixel by one. `docs/design/0007-people-who-do-not-exist.md` tells the method.
//!
//! What the networks say about these pictures is evidence about the code around the networks, never
//! about how well they know real people.
#![allow(dead_code, reason = "each test that takes this module uses another part of it")]

pub mod background;
pub mod body;
pub mod features;
pub mod fixtures;
pub mod hair;
pub mod head;
pub mod maths;
pub mod mesh;
pub mod raster;
pub mod scene;
pub mod shade;
pub mod skin;
pub mod traits;
pub mod wear;

use crate::people::features::Paint;
use crate::people::head::{Head, eye_centre, mouth_line};
use crate::people::maths::{Random, Rotation, Vec3, add, scale, sub};
use crate::people::mesh::{Material, Mesh, Vertex};
use crate::people::raster::{SAMPLES, Seen, Shadows, View};
use crate::people::shade::{Curve, Place, shade, tint};
use crate::people::traits::Person;

/// The middle of a face on the neutral head, about which a shot turns it: millimetres.
const FACE_MIDDLE: Vec3 = [0.0, 28.0, 60.0];
/// The pitch at which the modelled head stands when the networks of `models/` call it level: the
/// mean of what the face-state network said of 16 people.
const LEVEL_PITCH_DEG: f32 = 6.0;
/// Nearest that a camera comes, millimetres; the nose and a hand before it need 150.
const DISTANCE_MM_MIN: f32 = 300.0;
/// Upper edge of a face, as detectors draw it: half way up the forehead.
const FACE_TOP: f32 = -62.0;

/// How a person is photographed. Angles in degrees.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    /// Turned to the right side of the picture when positive.
    pub yaw_deg: f32,
    /// Looking down when positive.
    pub pitch_deg: f32,
    /// Leaning to the right side of the picture when positive.
    pub roll_deg: f32,
    /// Where the middle of the face is: shares of the picture's width and height.
    pub centre: [f32; 2],
    /// Width of the face from cheek to cheek in pixels.
    pub face_px: f32,
    /// From the camera, millimetres; a near face is drawn out towards the nose.
    pub distance_mm: f32,
    pub light: Light,
    /// Deviation of a Gaussian blur in pixels.
    pub blur_px: f32,
    /// Deviation of the sensor's noise in grey levels of 255.
    pub noise: f32,
    pub expression: Expression,
    /// 0 open to 1 closed.
    pub eyes_closed: f32,
    /// Where the eyes look: -1 to 1 to the right and down.
    pub gaze: [f32; 2],
    pub mask: Option<Mask>,
    pub sunglasses: bool,
    pub hand: Option<Hand>,
    pub background: Background,
}

impl Default for Shot {
    /// A frontal face of a third of a VGA picture's height, in the soft light of a room.
    fn default() -> Self {
        Self {
            yaw_deg: 0.0,
            pitch_deg: 0.0,
            roll_deg: 0.0,
            centre: [0.5, 0.5],
            face_px: 130.0,
            distance_mm: 900.0,
            light: Light::default(),
            blur_px: 0.5,
            noise: 1.5,
            expression: Expression::default(),
            eyes_closed: 0.0,
            gaze: [0.0, 0.0],
            mask: None,
            sunglasses: false,
            hand: None,
            background: Background::Room(1),
        }
    }
}

/// One lamp or window, and the light that comes from everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Light {
    /// From the right side of the picture when positive, degrees.
    pub azimuth_deg: f32,
    /// From above when positive, degrees.
    pub elevation_deg: f32,
    /// 0.8 is a room, 0.1 the night.
    pub strength: f32,
    pub ambient: f32,
    /// Factors on red, green and blue.
    pub colour: Vec3,
}

impl Default for Light {
    fn default() -> Self {
        Self {
            azimuth_deg: -25.0,
            elevation_deg: 35.0,
            strength: 0.62,
            ambient: 0.42,
            colour: [1.0; 3],
        }
    }
}

impl Light {
    /// Towards the light.
    pub fn direction(&self) -> Vec3 {
        let (across, near) = self.azimuth_deg.to_radians().sin_cos();
        let (up, level) = self.elevation_deg.to_radians().sin_cos();
        [across * level, -up, near * level]
    }
}

/// Each 0 (calm) to 1; the brow also to -1, which frowns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expression {
    pub mouth_open: f32,
    pub smile: f32,
    pub brow: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    Surgical,
    White,
    Dark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    OverMouth,
    OverEyes,
}

/// What is behind the person; the number chooses one of many.
#[derive(Clone, Copy, Debug)]
pub enum Background {
    /// One tone, 0 dark to 1 light.
    Plain(f32),
    Room(u64),
    Outdoors(u64),
}

/// Packed RGB rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

/// Where a face is, in pixels.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    /// Eye, eye, nose, corner and corner of the mouth, those at the left of the picture first.
    pub points: [[f32; 2]; 5],
    /// Left, top, width, height.
    pub bounds: [f32; 4],
}

/// Draws people, the later ones before the earlier ones. Background, blur and noise are those of
/// the last shot.
pub fn render(width: usize, height: usize, people: &[(&Person, Shot)]) -> (Picture, Vec<Truth>) {
    let last = people.last().map_or_else(Shot::default, |(_, shot)| *shot);
    let mut light = background::draw(&last.background, [width, height]);
    for value in &mut light {
        *value = scale(*value, 0.55 * last.light.strength + 0.75 * last.light.ambient);
    }
    let truths = people
        .iter()
        .map(|(person, shot)| draw(&mut light, [width, height], person, shot))
        .collect();
    (develop(&light, [width, height], &last), truths)
}

/// Where a shot has a person's head, and the camera.
struct Posed<'a> {
    head: Head<'a>,
    turn: Rotation,
    shift: Vec3,
    view: View,
}

impl<'a> Posed<'a> {
    fn new(person: &'a Person, shot: &Shot, [width, height]: [usize; 2]) -> Self {
        let pitch = shot.pitch_deg - LEVEL_PITCH_DEG;
        let turn = Rotation::of_head(shot.yaw_deg, pitch, shot.roll_deg);
        let view = View {
            centre: [shot.centre[0] * width as f32, shot.centre[1] * height as f32],
            scale: shot.face_px / (2.0 * person.skull.cheek),
            distance: shot.distance_mm.max(DISTANCE_MM_MIN),
        };
        let shift = scale(turn.turn(FACE_MIDDLE), -1.0);
        Self { head: Head::new(person, shot), turn, shift, view }
    }

    /// All surfaces, where the shot has them.
    fn meshes(&self, shot: &Shot) -> Vec<Mesh> {
        let person = self.head.person;
        let mut meshes = vec![self.head.mesh(shot.face_px)];
        meshes.extend(body::ears(&self.head));
        meshes.extend(wear::meshes(&self.head, shot));
        meshes.extend(hair::meshes(&self.head, shot.face_px));
        for mesh in &mut meshes {
            mesh.place(&self.turn, self.shift);
        }
        // The trunk follows the head a little, and hangs on it at the neck.
        let follow = Rotation::of_head(0.3 * shot.yaw_deg, 0.0, 0.15 * shot.roll_deg);
        let pivot = body::pivot(person);
        let hang = sub(add(self.turn.turn(pivot), self.shift), follow.turn(pivot));
        for mut mesh in body::trunk(person) {
            mesh.place(&follow, hang);
            meshes.push(mesh);
        }
        meshes
    }
}

fn draw(light: &mut [Vec3], size: [usize; 2], person: &Person, shot: &Shot) -> Truth {
    let posed = Posed::new(person, shot, size);
    let meshes = posed.meshes(shot);
    let seen = Seen::of(&meshes, &posed.view, size);
    let shadows = Shadows::of(&meshes, shot.light.direction());
    let share = 1.0 / (SAMPLES * SAMPLES) as f32;
    for row in 0..seen.height / SAMPLES {
        for column in 0..seen.width / SAMPLES {
            let pixel = (row + seen.top / SAMPLES) * size[0] + column + seen.left / SAMPLES;
            let behind = light[pixel];
            let mut sum = [0.0; 3];
            for sample in 0..SAMPLES * SAMPLES {
                let x = column * SAMPLES + sample % SAMPLES;
                let y = row * SAMPLES + sample / SAMPLES;
                let colour = match seen.at(&meshes, x, y) {
                    Some((material, vertex)) => {
                        let place = painted(&posed, shot, material, &vertex);
                        shade(&place, &shot.light, &shadows)
                    }
                    None => behind,
                };
                sum = add(sum, scale(colour, share));
            }
            light[pixel] = sum;
        }
    }
    truth(&posed)
}

/// A point of a surface, ready for light: on the face with eyes, brows and lips.
fn painted(posed: &Posed<'_>, shot: &Shot, material: Material, vertex: &Vertex) -> Place {
    let Vertex { at, normal, face, colour, gloss, open, .. } = *vertex;
    let plain = Place { material, at, normal, colour, gloss, open, glint: 0.0 };
    if material != Material::Face {
        return plain;
    }
    let under = Paint { colour, gloss, normal: None, open, glint: 0.0 };
    let Paint { colour, gloss, normal: eyeball, open, glint } =
        features::paint(posed.head.person, shot, face, under);
    let normal = eyeball.map_or(normal, |normal| posed.turn.turn(normal));
    Place { normal, colour, gloss, open, glint, ..plain }
}

/// Where a face is in a square picture of `side` pixels, without drawing it.
pub fn truth_of(side: usize, person: &Person, shot: &Shot) -> Truth {
    truth(&Posed::new(person, shot, [side, side]))
}

fn truth(posed: &Posed<'_>) -> Truth {
    let person = posed.head.person;
    let at = |x: f32, y: f32| {
        let place = posed.head.place(x, y);
        posed.view.project(add(posed.turn.turn(place), posed.shift))
    };
    let mouth = &person.mouth;
    let corner = |side: f32| {
        let x = side * mouth.half_width;
        at(x + mouth.lean, mouth_line(person, x))
    };
    let [left, right] = [-1.0, 1.0].map(|side| eye_centre(person, side));
    let nose = at(person.nose.lean, person.nose.tip_y);
    let points = [at(left[0], left[1]), at(right[0], right[1]), nose, corner(-1.0), corner(1.0)];
    let chin = person.skull.chin_y;
    let cheek = person.skull.cheek * 0.97;
    let outline = [
        (-cheek, 10.0),
        (cheek, 10.0),
        (-cheek, 35.0),
        (cheek, 35.0),
        (0.0, FACE_TOP),
        (-35.0, FACE_TOP + 4.0),
        (35.0, FACE_TOP + 4.0),
        (0.0, chin),
        (-20.0, chin - 4.0),
        (20.0, chin - 4.0),
        (0.0, person.nose.tip_y),
    ];
    let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
    for place in outline.map(|(x, y)| at(x, y)) {
        for axis in 0..2 {
            low[axis] = low[axis].min(place[axis]);
            high[axis] = high[axis].max(place[axis]);
        }
    }
    Truth { points, bounds: [low[0], low[1], high[0] - low[0], high[1] - low[1]] }
}

/// Lens and sensor: blur, noise, and numbers out of light.
fn develop(light: &[Vec3], [width, height]: [usize; 2], shot: &Shot) -> Picture {
    let curve = Curve::new();
    let blurred = blurred(light, [width, height], shot.blur_px);
    let mut random = Random::new(width as u64 * 31 + (shot.face_px * 64.0) as u64);
    let mut rgb = Vec::with_capacity(width * height * 3);
    for value in blurred {
        let bits = random.bits();
        for (channel, value) in value.into_iter().enumerate() {
            let part = ((bits >> (21 * channel)) & 0x1f_ffff) as u32;
            let bell = ((part & 0x7f) + ((part >> 7) & 0x7f) + (part >> 14)) as f32 / 127.0 - 1.5;
            let level = curve.level(value) + 2.0 * shot.noise * bell;
            rgb.push(level.round().clamp(0.0, 255.0) as u8);
        }
    }
    Picture { width, height, rgb }
}

fn blurred(light: &[Vec3], [width, height]: [usize; 2], deviation: f32) -> Vec<Vec3> {
    if deviation < 0.05 {
        return light.to_vec();
    }
    let reach = (3.0 * deviation).ceil() as usize;
    let weights: Vec<f32> = (0..=2 * reach)
        .map(|i| (-((i as f32 - reach as f32) / deviation).powi(2) / 2.0).exp())
        .collect();
    let total: f32 = weights.iter().sum();
    let pass = |source: &[Vec3], step: usize, count: usize, at: usize, index: usize| {
        let mut sum = [0.0; 3];
        for (offset, weight) in weights.iter().enumerate() {
            let near = (at + offset).saturating_sub(reach).min(count - 1);
            sum = add(sum, scale(source[index - at * step + near * step], *weight));
        }
        scale(sum, 1.0 / total)
    };
    let across: Vec<Vec3> =
        (0..light.len()).map(|index| pass(light, 1, width, index % width, index)).collect();
    (0..light.len()).map(|index| pass(&across, width, height, index / width, index)).collect()
}

/// Light of another warmth: -1 bluish, 0 white, 1 like a bulb.
pub fn light_colour(warmth: f32) -> Vec3 {
    tint(warmth)
}
