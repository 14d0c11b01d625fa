//! Synthetic visits: the frames of a person who comes up to a camera, drawn from one picture.
//!
//! What is drawn: the approach (scale), sway and turn of the head in the plane, camera shake, motion
//! blur along the movement, an autofocus and an exposure that settle, light from one side, sensor
//! noise that grows in the dark, and the camera's JPEG. What is not: turning the head out of the
//! plane, another expression, other hair: a visit drawn from one picture varies less than a real one.
//! Whether that flatters or harms is measured on visits made of several real pictures.

use crate::eval::random::SplitMix;
use crate::face::detection::Detection;
use crate::face::geometry::Point;
use crate::face::image::Image;

/// Frames of a visit.
pub const FRAMES: usize = 16;
/// Frames a second, for figures in milliseconds.
pub const FRAMES_PER_SECOND: f64 = 15.0;
/// Width and height of a frame in pixels.
const SIDE_PX: usize = 224;
/// Most samples along the path of a moving point during one exposure.
const BLUR_SAMPLES_MAX: usize = 5;

/// How one visit goes. Angles in radians, lengths in pixels of the frame.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Width of the face at the first and at the last frame.
    width_px: [f64; 2],
    sway: [Wave; 3],
    focus: Settling,
    gain: Settling,
    gamma: f64,
    side_light: f64,
    noise: f64,
    exposure: f64,
    quality: u8,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wave {
    amplitude: f64,
    frequency: f64,
    phase: f64,
}

/// A value that approaches its end within some frames.
#[derive(Clone, Copy, Debug)]
struct Settling {
    from: f64,
    to: f64,
    frames: f64,
}

/// Where the picture lies in a frame.
#[derive(Clone, Copy, Debug)]
struct Pose {
    scale: f64,
    angle: f64,
    x: f64,
    y: f64,
}

impl Walk {
    /// A visit drawn by chance; the same seed draws the same one. Easy and hard ones are equally
    /// frequent.
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let mut between = |low: f64, high: f64| low + (high - low) * random.uniform();
        let hard = between(0.0, 1.0);
        let start = between(45.0, 95.0);
        let mut wave = |amplitude: f64| Wave {
            amplitude: amplitude * between(0.3, 1.0),
            frequency: between(0.5, 2.0),
            phase: between(0.0, std::f64::consts::TAU),
        };
        let sway = [wave(14.0), wave(8.0), wave(0.15)];
        let settled = between(2.0, 12.0);
        let dark = 1.0 - 0.75 * hard * between(0.0, 1.0);
        let bright = if between(0.0, 1.0) < 0.25 { 1.0 + 0.6 * hard } else { dark };
        Self {
            width_px: [start, start * between(1.2, 1.9)],
            sway,
            focus: Settling { from: 3.0 * hard * between(0.0, 1.0), to: 0.3, frames: settled },
            gain: Settling { from: bright, to: between(0.75, 1.1), frames: settled },
            gamma: between(0.75, 1.35),
            side_light: hard * between(-0.5, 0.5),
            noise: 1.5 + 4.0 * hard,
            exposure: between(0.1, 0.5),
            quality: between(70.0, 92.0) as u8,
            seed,
        }
    }

    /// One frame of the visit, from a picture and the face in it.
    pub fn frame(&self, picture: &Image, face: &Detection, number: usize) -> Image {
        let pose = self.pose(face, number as f64);
        let before = self.pose(face, number as f64 - self.exposure);
        let sharp = sampled(picture, face, before, pose);
        let mut pixels = blurred(sharp, self.focus.at(number) * pose.scale);
        self.light(&mut pixels, number);
        let side = SIDE_PX as u32;
        let bytes = pixels.iter().map(|value| value.clamp(0.0, 255.0) as u8).collect();
        Image::from_rgb(side, side, bytes).unwrap_or_else(|_| picture.clone())
    }

    /// Quality of the camera's JPEG, 1 to 100.
    pub fn jpeg_quality(&self) -> u8 {
        self.quality
    }

    fn pose(&self, face: &Detection, frame: f64) -> Pose {
        let way = frame / (FRAMES - 1) as f64;
        let width = self.width_px[0] + (self.width_px[1] - self.width_px[0]) * way;
        let scale = width / f64::from(face.bounds.width.max(1.0));
        let [x, y, angle] = self.sway.map(|wave| wave.at(frame));
        Pose { scale, angle, x, y }
    }

    fn light(&self, pixels: &mut [f32], number: usize) {
        let mut random = SplitMix::new(self.seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9));
        let gain = self.gain.at(number);
        let noise = self.noise / gain.clamp(0.3, 1.5);
        let curve: Vec<f64> =
            (0..=255).map(|level| 255.0 * (f64::from(level) / 255.0).powf(self.gamma)).collect();
        for (index, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            let across = (index % SIDE_PX) as f64 / SIDE_PX as f64 - 0.5;
            let light = gain * (1.0 + self.side_light * 2.0 * across);
            for value in pixel {
                let level = value.clamp(0.0, 255.0) as usize;
                *value = (curve[level] * light + noise * random.nearly_normal()) as f32;
            }
        }
    }
}

impl Wave {
    fn at(self, frame: f64) -> f64 {
        let turns = self.frequency * frame / FRAMES_PER_SECOND;
        self.amplitude * (std::f64::consts::TAU * turns + self.phase).sin()
    }
}

impl Settling {
    fn at(self, frame: usize) -> f64 {
        self.to + (self.from - self.to) * (-(frame as f64) / self.frames * 2.0).exp()
    }
}

/// The frame as the picture moves from one pose to the other; outside the picture its edge.
fn sampled(picture: &Image, face: &Detection, from: Pose, to: Pose) -> Vec<f32> {
    let middle = face.bounds.centre();
    let travelled = (to.x - from.x).hypot(to.y - from.y)
        + ((to.angle - from.angle).abs() + (to.scale - from.scale).abs()) * 50.0;
    let samples = (travelled.ceil() as usize + 1).clamp(1, BLUR_SAMPLES_MAX);
    let mut pixels = vec![0.0; SIDE_PX * SIDE_PX * 3];
    for sample in 0..samples {
        let way = if samples == 1 { 1.0 } else { sample as f64 / (samples - 1) as f64 };
        let pose = from.between(to, way);
        let (sine, cosine) = pose.angle.sin_cos();
        for (index, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            let x = (index % SIDE_PX) as f64 - SIDE_PX as f64 / 2.0 - pose.x;
            let y = (index / SIDE_PX) as f64 - SIDE_PX as f64 / 2.0 - pose.y;
            let at = Point::new(
                middle.x + ((cosine * x + sine * y) / pose.scale) as f32,
                middle.y + ((cosine * y - sine * x) / pose.scale) as f32,
            );
            let colour = bilinear(picture, at);
            for (value, colour) in pixel.iter_mut().zip(colour) {
                *value += colour / samples as f32;
            }
        }
    }
    pixels
}

impl Pose {
    fn between(self, other: Pose, way: f64) -> Pose {
        let mix = |a: f64, b: f64| a + (b - a) * way;
        Pose {
            scale: mix(self.scale, other.scale),
            angle: mix(self.angle, other.angle),
            x: mix(self.x, other.x),
            y: mix(self.y, other.y),
        }
    }
}

fn bilinear(picture: &Image, at: Point) -> [f32; 3] {
    let x = at.x.clamp(0.0, (picture.width() - 1) as f32);
    let y = at.y.clamp(0.0, (picture.height() - 1) as f32);
    let (left, top) = (x as u32, y as u32);
    let (right, bottom) =
        ((left + 1).min(picture.width() - 1), (top + 1).min(picture.height() - 1));
    let (dx, dy) = (x - left as f32, y - top as f32);
    let corners = [
        (picture.pixel(left, top), (1.0 - dx) * (1.0 - dy)),
        (picture.pixel(right, top), dx * (1.0 - dy)),
        (picture.pixel(left, bottom), (1.0 - dx) * dy),
        (picture.pixel(right, bottom), dx * dy),
    ];
    [0, 1, 2].map(|channel| corners.iter().map(|(c, share)| f32::from(c[channel]) * share).sum())
}

/// Gaussian blur; nothing below a third of a pixel.
fn blurred(pixels: Vec<f32>, sigma: f64) -> Vec<f32> {
    if sigma < 0.33 {
        return pixels;
    }
    let reach = (2.5 * sigma).ceil() as isize;
    let kernel: Vec<f32> = (-reach..=reach)
        .map(|step| (-((step * step) as f64) / (2.0 * sigma * sigma)).exp() as f32)
        .collect();
    let sum: f32 = kernel.iter().sum();
    let pass = |pixels: &[f32], step: [usize; 2]| -> Vec<f32> {
        let mut out = vec![0.0; pixels.len()];
        for row in 0..SIDE_PX {
            for column in 0..SIDE_PX {
                let target = row * step[0] + column * step[1];
                for (index, weight) in kernel.iter().enumerate() {
                    let from = (column as isize + index as isize - reach)
                        .clamp(0, SIDE_PX as isize - 1) as usize;
                    let source = row * step[0] + from * step[1];
                    for channel in 0..3 {
                        out[target + channel] += pixels[source + channel] * weight / sum;
                    }
                }
            }
        }
        out
    };
    let along = pass(&pixels, [SIDE_PX * 3, 3]);
    pass(&along, [3, SIDE_PX * 3])
}
