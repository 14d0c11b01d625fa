//! What a worse picture costs, and what its quality says: `shot_quality PAIRS PEOPLE` degrades the
//! second picture of every genuine pair of the first four folds of a pair list and prints, for each
//! kind and degree, the mean cosine, how many pairs fall below the cosine of score 0.70, and the
//! quality figures at their 1st, 5th, 50th and 95th percentile.
//!
//! Needs the standard pack in `../shared/models` and ONNX Runtime in `vendor/`.
#![allow(clippy::print_stdout, reason = "a tool that prints a table")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use facelatch::face::comparison::Score;
use facelatch::face::detection::Detection;
use facelatch::face::image::Image;
use facelatch::face::quality::Quality;
use facelatch::face::template::Template;
use facelatch::inference::manifest::Manifest;
use facelatch::inference::onnx::OnnxLoader;
use facelatch::picture;
use facelatch::recognition::Recognizer;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One way to spoil a picture.
#[derive(Clone, Copy, Debug)]
enum Spoil {
    /// As it is.
    Nothing,
    /// Gaussian blur with this deviation in pixels; the eyes are about 42 px apart.
    Focus(f32),
    /// The mean along a horizontal line of so many pixels.
    Motion(usize),
    /// Less light, with noise of two grey levels.
    Dim(f32),
    /// More light, cut off at 255.
    Burn(f32),
    /// A smaller picture.
    Far(f32),
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pairs, people] = arguments.as_slice() else {
        return Err("usage: shot_quality PAIRS PEOPLE".into());
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = format!("vendor/onnxruntime/{}/libonnxruntime.so", std::env::consts::ARCH);
    let pack = Manifest::embedded().pack("standard", None, &root.join("../shared/models"))?;
    let limit = pack.embedding.score_map.cosine(Score::new(0.7).ok_or("0.7 is a score")?);
    let mut recognizer = Recognizer::load(&pack, &OnnxLoader::new(Some(&root.join(library)))?, 1)?;
    let mut shots = Vec::new();
    for (name, first, second) in genuine(&fs::read_to_string(pairs)?) {
        let open = |number: &str| -> Outcome<Image> {
            let number: u32 = number.parse()?;
            let file = Path::new(people).join(name).join(format!("{name}_{number:04}.jpg"));
            Ok(picture::decode(&fs::read(file)?)?)
        };
        let (Ok(first), Ok(second)) = (open(first), open(second)) else { continue };
        let Some(face) = recognizer.detect_near(&first)?.first().copied() else { continue };
        shots.push((recognizer.embed(&first, &face)?, second));
    }
    println!("{} pairs; limit of the cosine {limit:.3}", shots.len());
    println!(
        "{:<14} n     cosine  missed  | 1, 5, 50, 95 %: sharpness | mean | bright | width",
        ""
    );
    for spoil in all() {
        line(&mut recognizer, &shots, spoil, limit)?;
    }
    Ok(())
}

fn all() -> Vec<Spoil> {
    use Spoil::{Burn, Dim, Far, Focus, Motion, Nothing};
    let mut all = vec![Nothing];
    all.extend([1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0].map(Focus));
    all.extend([5, 9, 13, 17, 21].map(Motion));
    all.extend([0.5, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05].map(Dim));
    all.extend([1.5, 2.0, 2.5, 3.0, 4.0, 6.0].map(Burn));
    all.extend([0.6, 0.5, 0.4, 0.33, 0.27, 0.22, 0.18].map(Far));
    all
}

/// Genuine pairs of folds 1 to 4: name and two numbers. The last fold is kept for acceptance.
fn genuine(list: &str) -> Vec<(&str, &str, &str)> {
    let lines = list.lines().skip(1).take(4 * 600);
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter_map(|f| (f.len() == 3).then(|| (f[0], f[1], f[2]))).collect()
}

fn line(
    recognizer: &mut Recognizer,
    shots: &[(Template, Image)],
    spoil: Spoil,
    limit: f32,
) -> Outcome<()> {
    let (mut cosines, mut found, mut time) = (Vec::new(), Vec::new(), Duration::ZERO);
    for (reference, image) in shots {
        let image = spoiled(image, spoil);
        let Some(face): Option<Detection> = recognizer.detect_near(&image)?.first().copied() else {
            continue;
        };
        let start = Instant::now();
        found.push(Quality::of(&image, &face));
        time += start.elapsed();
        let probe = recognizer.embed(&image, &face)?;
        cosines
            .push(probe.values().iter().zip(reference.values()).map(|(a, b)| a * b).sum::<f32>());
    }
    let n = cosines.len();
    let missed = cosines.iter().filter(|cosine| **cosine < limit).count();
    let mean = cosines.iter().sum::<f32>() / n as f32;
    let figures = [
        percentiles(found.iter().map(|q| q.sharpness.unwrap_or(f32::NAN)).collect()),
        percentiles(found.iter().map(|q| q.mean).collect()),
        percentiles(found.iter().map(|q| q.bright_share).collect()),
        percentiles(found.iter().map(|q| q.face_px).collect()),
    ];
    let flaws = found.iter().filter(|q| q.flaw().is_some()).count();
    println!(
        "{:<14} {n:<5} {mean:.3}   {:>5.2} % | {} | flaws {flaws} | {} us",
        format!("{spoil:?}"),
        100.0 * missed as f32 / n as f32,
        figures.join(" | "),
        time.as_micros() / n.max(1) as u128,
    );
    Ok(())
}

fn percentiles(mut values: Vec<f32>) -> String {
    values.sort_by(f32::total_cmp);
    let at = |percent: usize| values.get(values.len() * percent / 100).copied().unwrap_or(f32::NAN);
    [1, 5, 50, 95].map(|percent| format!("{:.2}", at(percent))).join(" ")
}

fn spoiled(image: &Image, spoil: Spoil) -> Image {
    let mut seed = 1u32;
    let mut noise = || {
        let mut sum = 0.0;
        for _ in 0..4 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            sum += (seed >> 8) as f32 / (1 << 24) as f32 - 0.5;
        }
        // Four uniform values have a deviation of 0.58.
        sum * 2.0 / 0.577
    };
    match spoil {
        Spoil::Nothing => image.clone(),
        Spoil::Focus(sigma) => {
            let reach = (3.0 * sigma).ceil() as i32;
            let weight = |at: i32| (-(at * at) as f32 / (2.0 * sigma * sigma)).exp();
            let kernel: Vec<f32> = (-reach..=reach).map(weight).collect();
            filtered(&filtered(image, &kernel, (1, 0)), &kernel, (0, 1))
        }
        Spoil::Motion(length) => filtered(image, &vec![1.0; length], (1, 0)),
        Spoil::Dim(gain) => mapped(image, |value| value * gain + noise()),
        Spoil::Burn(gain) => mapped(image, |value| value * gain),
        Spoil::Far(scale) => image.resized((image.width() as f32 * scale) as u32),
    }
}

fn mapped(image: &Image, mut map: impl FnMut(f32) -> f32) -> Image {
    let pixels =
        image.pixels().iter().map(|v| map(f32::from(*v)).round().clamp(0.0, 255.0) as u8).collect();
    Image::from_rgb(image.width(), image.height(), pixels).expect("as many pixels as before")
}

fn filtered(image: &Image, kernel: &[f32], (dx, dy): (i32, i32)) -> Image {
    let (width, height) = (image.width() as i32, image.height() as i32);
    let (reach, sum) = (kernel.len() as i32 / 2, kernel.iter().sum::<f32>());
    let mut pixels = Vec::with_capacity(image.pixels().len());
    for y in 0..height {
        for x in 0..width {
            let mut rgb = [0.0; 3];
            for (index, weight) in kernel.iter().enumerate() {
                let by = index as i32 - reach;
                let x = (x + dx * by).clamp(0, width - 1) as u32;
                let y = (y + dy * by).clamp(0, height - 1) as u32;
                for (mean, value) in rgb.iter_mut().zip(image.pixel(x, y)) {
                    *mean += weight * f32::from(value) / sum;
                }
            }
            pixels.extend(rgb.map(|value| value.round() as u8));
        }
    }
    Image::from_rgb(image.width(), image.height(), pixels).expect("as many pixels as before")
}
