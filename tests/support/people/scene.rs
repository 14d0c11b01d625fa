//! Ready-made scenes: one person in ever other light, somebody who walks towards the door,
//! somebody who holds up a photograph.

use crate::people::maths::{Random, mix, step};
use crate::people::traits::Person;
use crate::people::{Background, Expression, Light, Picture, Shot, Truth, light_colour, render};

/// People whom a door tells apart at its own threshold. Drawn people are more alike than real ones
/// to an embedding network, and a test that enrols some and wants others denied needs those who are
/// not: of six shots each (`varied` 0 to 5 at 256 px, `YuNet` and the embedded detector), every
/// comparison of two of these people lies below the cosine of score 0.70, and every one of the same
/// person at least 0.1 above, for the embedded embedding and for `MobileFaceNet` in int8.
pub const CAST: [u64; 9] = [180, 522, 509, 229, 268, 182, 303, 151, 105];

/// A shot of somebody in a square picture of `side` pixels: number 0 calm and frontal, every other
/// one with its own pose (yaw to 20 degrees, pitch to 12, roll to 10), light, distance, expression,
/// sharpness, noise and background.
pub fn varied(person: &Person, number: u64, side: f32) -> Shot {
    let mut random = Random::new(person.identity.wrapping_mul(1009).wrapping_add(number) ^ 0x5507);
    let r = &mut random;
    let background = Background::Room(r.bits() >> 8);
    if number == 0 {
        return Shot { face_px: 0.42 * side, background, ..Shot::default() };
    }
    let light = Light {
        azimuth_deg: r.between(-60.0, 60.0),
        elevation_deg: r.between(5.0, 60.0),
        strength: r.between(0.3, 0.8),
        ambient: r.between(0.25, 0.55),
        colour: light_colour(r.between(-0.7, 0.8)),
    };
    let expression = Expression {
        mouth_open: if r.chance(0.3) { r.between(0.1, 0.8) } else { 0.0 },
        smile: if r.chance(0.5) { r.between(0.0, 1.0) } else { 0.0 },
        brow: r.between(-0.5, 0.7),
    };
    Shot {
        yaw_deg: r.between(-20.0, 20.0),
        pitch_deg: r.between(-12.0, 12.0),
        roll_deg: r.between(-10.0, 10.0),
        centre: [r.between(0.45, 0.55), r.between(0.46, 0.56)],
        face_px: side * r.between(0.32, 0.5),
        distance_mm: r.between(600.0, 1500.0),
        light,
        expression,
        blur_px: r.between(0.3, 0.9),
        noise: r.between(0.5, 4.0),
        eyes_closed: r.between(0.0, 0.25),
        gaze: [r.between(-0.5, 0.5), r.between(-0.3, 0.3)],
        background: if r.chance(0.6) { background } else { Background::Outdoors(r.bits() >> 8) },
        ..Shot::default()
    }
}

/// A person who comes towards the camera and stops before it.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    pub width: usize,
    pub height: usize,
    pub frames: usize,
    /// Width of the face in the first and the last frame, pixels.
    pub face_px: [f32; 2],
    /// Chooses how the head sways, where the person looks and when they blink.
    pub seed: u64,
}

impl Walk {
    /// The shot of each frame.
    pub fn shots(&self) -> Vec<Shot> {
        let mut random = Random::new(self.seed ^ 0xA1);
        let r = &mut random;
        let (phase, start) = (r.between(0.0, 6.0), r.between(-0.16, 0.16));
        let (yaw, pitch) = (r.between(-8.0, 8.0), r.between(-3.0, 5.0));
        let blink = self.frames * 2 / 3 + r.below(self.frames.max(6) / 6);
        let background = Background::Room(self.seed);
        let shot = |frame: usize| {
            let way = frame as f32 / (self.frames.max(2) - 1) as f32;
            let arrived = step(0.0, 0.8, way);
            let stride = (phase + frame as f32 * 0.55).sin() * (1.0 - arrived);
            // The distance falls evenly, so the face grows the faster the nearer it is.
            let face_px = 1.0 / mix(1.0 / self.face_px[0], 1.0 / self.face_px[1], arrived);
            Shot {
                yaw_deg: yaw * (1.0 - arrived) + 3.0 * (phase + frame as f32 * 0.13).sin(),
                pitch_deg: pitch + 2.0 * (phase + frame as f32 * 0.17).cos(),
                roll_deg: 2.5 * stride,
                centre: [
                    0.5 + start * (1.0 - arrived) + 0.01 * stride,
                    mix(0.4, 0.5, arrived) + 0.008 * stride.abs(),
                ],
                face_px,
                distance_mm: (900.0 * self.face_px[1] / face_px).min(6000.0),
                blur_px: mix(0.9, 0.5, arrived),
                expression: Expression {
                    smile: 0.3 * step(0.6, 1.0, way),
                    ..Expression::default()
                },
                eyes_closed: if frame == blink { 1.0 } else { 0.0 },
                background,
                ..Shot::default()
            }
        };
        (0..self.frames).map(shot).collect()
    }

    /// The frames.
    pub fn render(&self, person: &Person) -> Vec<(Picture, Truth)> {
        let frame = |shot| {
            let (picture, truth) = render(self.width, self.height, &[(person, shot)]);
            (picture, truth[0])
        };
        self.shots().into_iter().map(frame).collect()
    }
}

/// What a picture is held up on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A white margin.
    Print,
    /// A black frame with round corners that shines by itself.
    Phone,
}

/// Margin around the picture: share of its width.
const MARGIN: f32 = 0.06;

/// A picture held up before another: its width in pixels, its middle as shares of the frame, and
/// how far it leans, degrees. What is held is dimmer than a face would be, or glows.
pub fn held_up(
    frame: &Picture,
    held: &Picture,
    medium: Medium,
    width_px: f32,
    lean_deg: f32,
) -> Picture {
    let mut out = frame.clone();
    let (sin, cos) = lean_deg.to_radians().sin_cos();
    let aspect = held.height as f32 / held.width as f32;
    let margin = MARGIN * width_px;
    let half = [width_px / 2.0, width_px * aspect / 2.0];
    for row in 0..frame.height {
        for column in 0..frame.width {
            let (dx, dy) =
                (column as f32 - frame.width as f32 / 2.0, row as f32 - frame.height as f32 / 2.0);
            let (x, y) = (dx * cos + dy * sin, dy * cos - dx * sin);
            let outside = [x.abs() - half[0], y.abs() - half[1]];
            if outside[0].max(outside[1]) > margin {
                continue;
            }
            let at = 3 * (row * frame.width + column);
            let is_picture = outside[0].max(outside[1]) <= 0.0;
            let pixel = if is_picture {
                let share = |value: f32, half: f32, count: usize| {
                    (f32::midpoint(value / half, 1.0) * count as f32).clamp(0.0, count as f32 - 1.0)
                };
                sample(held, share(x, half[0], held.width), share(y, half[1], held.height))
            } else {
                [if medium == Medium::Print { 228.0 } else { 16.0 }; 3]
            };
            // Paper has no deep black and no bright white; a screen is a little blue.
            for (channel, value) in pixel.into_iter().enumerate() {
                let value = match medium {
                    Medium::Print => 26.0 + 0.78 * value,
                    Medium::Phone => value * [0.97, 1.0, 1.06][channel] + 4.0,
                };
                out.rgb[at + channel] = value.clamp(0.0, 255.0) as u8;
            }
        }
    }
    out
}

fn sample(picture: &Picture, x: f32, y: f32) -> [f32; 3] {
    let (left, top) = (x as usize, y as usize);
    let (right, below) = ((left + 1).min(picture.width - 1), (top + 1).min(picture.height - 1));
    let (u, v) = (x.fract(), y.fract());
    [0, 1, 2].map(|channel| {
        let at = |x: usize, y: usize| f32::from(picture.rgb[3 * (y * picture.width + x) + channel]);
        mix(mix(at(left, top), at(right, top), u), mix(at(left, below), at(right, below), u), v)
    })
}
