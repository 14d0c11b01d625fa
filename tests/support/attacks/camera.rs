//! The camera that takes attack and bona fide alike: lens, pixels, colour filter, noise, exposure,
//! white balance, sharpening and JPEG.

use facelatch::face::image::Image;
use facelatch::picture;
use serde::Serialize;

use crate::attacks::SAMPLES;
use crate::attacks::draw::Draw;
use crate::attacks::light::Light;
use crate::attacks::light::Rgb;
use crate::attacks::light::coded;
use crate::attacks::light::luminance;

/// Sensor pixels per pixel of the frame, each way: a VGA sensor, 1.2 megapixels (HD) and 5
/// megapixels behind a VGA frame. What the colour filter aliases survives the averaging: that is
/// how screens get their coloured bands. Divides [`SAMPLES`].
const SENSOR_SCALES: [usize; 4] = [1, 2, 2, 4];
/// Steps of the table of the tone curve.
const TONE_STEPS: usize = 4096;
/// Light at which the sensor's pixels are full, relative to white of the frame.
const FULL: f32 = 1.15;

/// One camera in one light.
#[derive(Clone, Debug, Serialize)]
pub struct Camera {
    /// Standard deviation of the lens blur in pixels of the frame.
    pub blur_px: f32,
    /// Sensor pixels per pixel of the frame.
    pub sensor_scale: usize,
    /// Variance of the photon noise per light.
    pub photon_noise: f32,
    /// Standard deviation of the noise in the dark.
    pub dark_noise: f32,
    /// Mean light of the face after exposure.
    pub face_light: f32,
    /// Share of the whole frame in the exposure, the rest is the face.
    pub frame_metering: f32,
    /// What the white balance leaves of a tint, in red and blue.
    pub balance: [f32; 2],
    /// Share of the scene's own tint that it removes.
    pub balanced: f32,
    /// Strength of sharpening.
    pub sharpening: f32,
    /// Quality of the JPEG file.
    pub jpeg_quality: u8,
    seed: u64,
}

/// Columns and rows that the face covers.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Left, top, right, bottom.
    pub px: [usize; 4],
}

impl Camera {
    /// One of the door cameras that the ranges allow.
    pub fn draw(draw: &mut Draw) -> Self {
        let sensor_scale = draw.pick(&SENSOR_SCALES);
        // A lens is about as sharp as its sensor's pixels; a fixed focus is not always met.
        let lens = draw.scaled([0.3, 0.6]) / sensor_scale as f32;
        let defocus = if draw.chance(0.4) { draw.scaled([0.2, 0.9]) } else { 0.0 };
        Self {
            blur_px: lens.hypot(defocus),
            sensor_scale,
            photon_noise: draw.scaled([0.00005, 0.0008]),
            dark_noise: draw.scaled([0.001, 0.006]),
            face_light: draw.scaled([0.15, 0.34]),
            frame_metering: draw.within([0.2, 0.7]),
            balance: [draw.within([0.93, 1.07]), draw.within([0.9, 1.1])],
            balanced: draw.within([0.5, 1.0]),
            sharpening: draw.within([0.0, 0.8]),
            jpeg_quality: draw.within([75.0, 93.0]) as u8,
            seed: draw.bits(),
        }
    }

    /// Standard deviation of the Gaussian that a sample stands for, in samples: where a sample is a
    /// sensor pixel it has that pixel's aperture; where several make one it is wider, so that only
    /// the sensor aliases.
    pub fn sample_sigma(&self) -> f32 {
        if self.sensor_scale == SAMPLES { 0.35 } else { 0.6 }
    }

    /// Takes a frame. `row` gives one row of samples, [`SAMPLES`] to a pixel each way, by its
    /// number; `white` is the colour of the scene's light.
    pub fn take(
        &self,
        [width, height]: [usize; 2],
        row: &(dyn Fn(usize, &mut [Rgb]) + Sync),
        white: Rgb,
        face: Window,
    ) -> Vec<u8> {
        let sensor = self.optics([width, height], row);
        let gain = self.gain(&sensor, white, face);
        let raw = self.expose(&sensor, gain);
        let frame = averaged(&demosaiced(&raw, sensor.width, sensor.height), self.sensor_scale);
        let pixels = toned(&self.sharpened(&frame));
        let frame = Image::from_rgb(width as u32, height as u32, pixels);
        picture::encode_jpeg(&frame.expect("a frame has three bytes a pixel"), self.jpeg_quality)
    }

    /// Blurs the samples by the lens and adds them up on the sensor's square pixels.
    fn optics(
        &self,
        [width, height]: [usize; 2],
        row: &(dyn Fn(usize, &mut [Rgb]) + Sync),
    ) -> Light {
        let block = SAMPLES / self.sensor_scale;
        let kernel = spread(self.blur_px * SAMPLES as f32, block);
        let (columns, rows) = (width * self.sensor_scale, height * self.sensor_scale);
        let mut line = vec![[0.0; 3]; width * SAMPLES];
        let mut narrow = Vec::with_capacity(columns * height * SAMPLES);
        for y in 0..height * SAMPLES {
            row(y, &mut line);
            narrow.extend(
                (0..columns).map(|x| gathered(&kernel, x, block, line.len(), |at| line[at])),
            );
        }
        let values = (0..rows).flat_map(|y| {
            let (kernel, narrow) = (&kernel, &narrow);
            (0..columns).map(move |x| {
                gathered(kernel, y, block, height * SAMPLES, |at| narrow[at * columns + x])
            })
        });
        Light { width: columns, height: rows, values: values.collect() }
    }

    /// Gain per colour that exposes the face and balances white.
    fn gain(&self, sensor: &Light, white: Rgb, face: Window) -> Rgb {
        let [left, top, right, bottom] = face.px.map(|px| px * self.sensor_scale);
        let mut sum = 0.0;
        let mut count = 0.0;
        for y in top..bottom.min(sensor.height) {
            for x in left..right.min(sensor.width) {
                sum += luminance(sensor.values[y * sensor.width + x]);
                count += 1.0;
            }
        }
        let face = f32::max(sum / f32::max(count, 1.0), 1e-3);
        let all = sensor.values.iter().map(|value| luminance(*value)).sum::<f32>();
        let frame = f32::max(all / sensor.values.len() as f32, 1e-3);
        // Meters look at the whole frame, too, or a dark face would turn a room white.
        let metered = face.powf(1.0 - self.frame_metering) * frame.powf(self.frame_metering);
        let exposure = self.face_light / metered;
        let tint = [0, 1, 2].map(|c| (white[1] / white[c]).powf(self.balanced));
        [
            exposure * tint[0] * self.balance[0],
            exposure * tint[1],
            exposure * tint[2] * self.balance[1],
        ]
    }

    /// One value per sensor pixel under its colour filter, with noise.
    fn expose(&self, sensor: &Light, gain: Rgb) -> Vec<f32> {
        let mut noise = Draw::new(self.seed, &["sensor"]);
        let mut raw = Vec::with_capacity(sensor.values.len());
        // Smaller pixels catch fewer photons; per pixel of the frame it is the same noise.
        let area = (self.sensor_scale * self.sensor_scale) as f32;
        for y in 0..sensor.height {
            for x in 0..sensor.width {
                let colour = filter(x, y);
                let light = sensor.values[y * sensor.width + x][colour] * gain[colour];
                // Amplifying a colour amplifies its noise.
                let gain = gain[colour] / gain[1];
                let variance = area
                    * (self.photon_noise * light.max(0.0) * gain
                        + (self.dark_noise * gain).powi(2));
                raw.push((light + variance.sqrt() * noise.normal()).clamp(0.0, FULL));
            }
        }
        raw
    }

    /// Adds what a small blur takes away.
    fn sharpened(&self, frame: &Light) -> Light {
        let at = |x: usize, y: usize| frame.values[y * frame.width + x];
        let mut values = Vec::with_capacity(frame.values.len());
        for y in 0..frame.height {
            let (above, below) = (y.saturating_sub(1), (y + 1).min(frame.height - 1));
            for x in 0..frame.width {
                let (left, right) = (x.saturating_sub(1), (x + 1).min(frame.width - 1));
                let around = [at(left, y), at(right, y), at(x, above), at(x, below)];
                values.push([0, 1, 2].map(|c| {
                    let mean = around.iter().map(|colour| colour[c]).sum::<f32>() / 4.0;
                    at(x, y)[c] + self.sharpening * 0.5 * (at(x, y)[c] - mean)
                }));
            }
        }
        Light { values, ..*frame }
    }
}

/// The colour filter of a sensor pixel: red and green, green and blue.
fn filter(x: usize, y: usize) -> usize {
    x % 2 + y % 2
}

/// A Gaussian of `sigma` samples over a pixel of `block` samples, adding up to 1; its middle lies
/// on the pixel's middle.
fn spread(sigma: f32, block: usize) -> Vec<f32> {
    let reach = (2.6 * sigma).ceil() as i32;
    let weight = |at: i32| {
        let inside = (0..block as i32).map(|inner| (at - inner) as f32 / sigma);
        inside.map(|distance| (-0.5 * distance * distance).exp()).sum::<f32>()
    };
    let kernel: Vec<f32> = (-reach..block as i32 + reach).map(weight).collect();
    let sum: f32 = kernel.iter().sum();
    kernel.into_iter().map(|weight| weight / sum).collect()
}

/// The weighted mean of the samples around pixel `index`, edges repeated.
fn gathered(
    kernel: &[f32],
    index: usize,
    block: usize,
    samples: usize,
    at: impl Fn(usize) -> Rgb,
) -> Rgb {
    let reach = (kernel.len() - block) / 2;
    let mut sum = [0.0f32; 3];
    if index * block >= reach && index * block + kernel.len() <= samples {
        let first = index * block - reach;
        for (sample, weight) in (first..).zip(kernel) {
            let colour = at(sample);
            for (sum, value) in sum.iter_mut().zip(colour) {
                *sum += weight * value;
            }
        }
        return sum;
    }
    for (offset, weight) in kernel.iter().enumerate() {
        let sample = (index * block + offset).saturating_sub(reach).min(samples - 1);
        let colour = at(sample);
        for (sum, value) in sum.iter_mut().zip(colour) {
            *sum += weight * value;
        }
    }
    sum
}

/// The missing two colours of each pixel: the mean of the nearest pixels that have them, in a
/// window of three by three.
fn demosaiced(raw: &[f32], width: usize, height: usize) -> Light {
    let mut values = Vec::with_capacity(raw.len());
    for y in 0..height {
        let rows = y.saturating_sub(1)..(y + 2).min(height);
        for x in 0..width {
            let own = filter(x, y);
            let (mut sum, mut count) = ([0.0f32; 3], [0.0f32; 3]);
            for row in rows.clone() {
                for column in x.saturating_sub(1)..(x + 2).min(width) {
                    let colour = filter(column, row);
                    // A green pixel's diagonal neighbours are green too; it needs none of them.
                    sum[colour] += raw[row * width + column];
                    count[colour] += 1.0;
                }
            }
            let mut colour: Rgb = [0, 1, 2].map(|c| sum[c] / f32::max(count[c], 1.0));
            colour[own] = raw[y * width + x];
            values.push(colour);
        }
    }
    Light { width, height, values }
}

/// The mean of `scale` by `scale` sensor pixels.
fn averaged(sensor: &Light, scale: usize) -> Light {
    if scale == 1 {
        return sensor.clone();
    }
    sensor.reduced(sensor.width.max(sensor.height) / scale)
}

/// Light to the bytes of a file.
fn toned(frame: &Light) -> Vec<u8> {
    let table: Vec<u8> = (0..=TONE_STEPS)
        .map(|step| (coded(shoulder(step as f32 / TONE_STEPS as f32 * FULL)) * 255.0).round() as u8)
        .collect();
    let byte = |value: f32| table[(value.clamp(0.0, FULL) / FULL * TONE_STEPS as f32) as usize];
    frame.values.iter().flat_map(|colour| colour.map(byte)).collect()
}

/// Cameras roll highlights off instead of cutting them.
fn shoulder(light: f32) -> f32 {
    const KNEE: f32 = 0.75;
    if light <= KNEE {
        return light;
    }
    let over = (light - KNEE) / (1.0 - KNEE);
    (KNEE + (1.0 - KNEE) * (1.0 - (-over).exp()) * 1.13).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grey_wall_is_exposed_as_drawn() {
        for seed in 0..4 {
            let camera = Camera::draw(&mut Draw::new(seed, &["camera"]));
            let row = |_: usize, line: &mut [Rgb]| line.fill([0.02; 3]);
            let face = Window { px: [10, 10, 50, 40] };
            let file = camera.take([64, 48], &row, [1.0; 3], face);
            let image = picture::decode(&file).unwrap();
            let green = image.pixels().chunks_exact(3).map(|rgb| f32::from(rgb[1]));
            let mean = green.sum::<f32>() / (64.0 * 48.0);
            let expected = coded(camera.face_light) * 255.0;
            assert!((mean - expected).abs() < 4.0, "{mean}, expected {expected}");
        }
    }

    #[test]
    fn the_lens_keeps_light() {
        for (sigma, block) in [(0.3, 1), (1.0, 2), (3.6, 4)] {
            let kernel = spread(sigma, block);
            assert!((kernel.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let mirrored: Vec<f32> = kernel.iter().rev().copied().collect();
            assert!(kernel.iter().zip(mirrored).all(|(a, b)| (a - b).abs() < 1e-6), "{sigma}");
        }
    }
}
