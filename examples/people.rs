//! Draws people who do not exist (`tests/support/people`):
//!
//! - `people sheet OUT.png [--people N] [--first K]`: one portrait each, to look at
//! - `people folders DIR [--people N] [--shots M] [--first K] [--side PX]`: DIR/people/<name>/*.jpg
//!   and pairs.txt, for `facelatch eval recognition`, the demo (DIR/people) and training
//! - `people fixtures DIR`: the pictures that are committed in `tests/pictures/people`
//! - `people detect [--people N] [--shots M] [--pack P]`: how well a detector finds them; needs
//!   ONNX Runtime in `vendor/`, and `../shared/models` for another pack than `builtin`
#![allow(clippy::print_stdout, reason = "a tool that prints a table")]

#[path = "../tests/support/people/mod.rs"]
mod people;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use facelatch::face::detection::Detection;
use facelatch::face::image::Image;
use facelatch::inference::manifest::Manifest;
use facelatch::inference::onnx::OnnxLoader;
use facelatch::picture;
use facelatch::recognition::Recognizer;

use crate::people::fixtures;
use crate::people::maths::Random;
use crate::people::scene;
use crate::people::traits::Person;
use crate::people::{Background, Picture, Shot, Truth, render};

const USAGE: &str = "usage: people sheet OUT.png | folders DIR | fixtures DIR | detect \
    [--people N] [--shots M] [--first K] [--side PX] [--pack P]";
/// Quality of the JPEG files, of 100.
const JPEG_QUALITY: u8 = 92;
/// Columns of a sheet, and the side of its pictures in pixels.
const SHEET_COLUMNS: usize = 8;
const SHEET_SIDE_PX: usize = 200;
/// Folds of the verification pairs.
const FOLDS: usize = 10;
/// Least confidence of a detection that counts as found.
const CONFIDENCE_MIN: f32 = 0.7;
/// Least overlap of a detection with the drawn face, as intersection over union.
const OVERLAP_MIN: f32 = 0.5;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

struct Options {
    people: usize,
    shots: usize,
    first: u64,
    side: usize,
    pack: String,
}

fn main() {
    if let Err(error) = run() {
        eprintln!("people: {error}");
        std::process::exit(1);
    }
}

fn run() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (words, options) = read(&arguments)?;
    match words.as_slice() {
        ["sheet", out] => sheet(Path::new(out), &options),
        ["folders", dir] => folders(Path::new(dir), &options),
        ["fixtures", dir] => write_fixtures(Path::new(dir)),
        ["detect"] => detect(&options),
        _ => Err(USAGE.into()),
    }
}

fn read(arguments: &[String]) -> Outcome<(Vec<&str>, Options)> {
    let mut options = Options { people: 40, shots: 4, first: 0, side: 320, pack: "builtin".into() };
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if !argument.starts_with("--") {
            words.push(argument.as_str());
            continue;
        }
        let value = rest.next().ok_or(USAGE)?;
        match argument.as_str() {
            "--people" => options.people = value.parse()?,
            "--shots" => options.shots = value.parse()?,
            "--first" => options.first = value.parse()?,
            "--side" => options.side = value.parse()?,
            "--pack" => options.pack.clone_from(value),
            _ => return Err(USAGE.into()),
        }
    }
    Ok((words, options))
}

fn image(picture: &Picture) -> Outcome<Image> {
    let (width, height) = (picture.width as u32, picture.height as u32);
    Ok(Image::from_rgb(width, height, picture.rgb.clone())?)
}

/// Draws one portrait each onto a sheet.
fn sheet(out: &Path, options: &Options) -> Outcome<()> {
    let side = SHEET_SIDE_PX;
    let rows = options.people.div_ceil(SHEET_COLUMNS);
    let mut sheet = image::RgbImage::new((SHEET_COLUMNS * side) as u32, (rows * side) as u32);
    for index in 0..options.people {
        let person = Person::new(options.first + index as u64);
        let background = Background::Room(person.identity);
        let shot = Shot { face_px: 0.5 * side as f32, background, ..Shot::default() };
        let (picture, _) = render(side, side, &[(&person, shot)]);
        let (left, top) = (index % SHEET_COLUMNS * side, index / SHEET_COLUMNS * side);
        for (at, pixel) in picture.rgb.chunks_exact(3).enumerate() {
            let (x, y) = ((left + at % side) as u32, (top + at / side) as u32);
            sheet.put_pixel(x, y, image::Rgb([pixel[0], pixel[1], pixel[2]]));
        }
    }
    Ok(sheet.save(out)?)
}

/// Draws every shot of every person, on all processors: the person's number, the shot's and what
/// `take` makes of the picture.
fn each_shot<T: Send>(
    options: &Options,
    take: impl Fn(usize, usize, &Picture, &Truth) -> Outcome<T> + Sync,
) -> Outcome<Vec<T>> {
    let (next, made) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let side = options.side;
    let work = || -> Outcome<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= options.people {
                return Ok(());
            }
            let person = Person::new(options.first + index as u64);
            for number in 0..options.shots {
                let shot = scene::varied(&person, number as u64, side as f32);
                let (picture, truths) = render(side, side, &[(&person, shot)]);
                let taken = take(index, number, &picture, &truths[0])?;
                made.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| -> Outcome<()> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })?;
    Ok(made.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn name(index: usize) -> String {
    format!("person{index:04}")
}

fn folders(dir: &Path, options: &Options) -> Outcome<()> {
    let folder = |index: usize| dir.join("people").join(name(index));
    for index in 0..options.people {
        fs::create_dir_all(folder(index))?;
    }
    each_shot(options, |index, number, picture, _| {
        let file = folder(index).join(format!("{}_{:04}.jpg", name(index), number + 1));
        Ok(fs::write(file, picture::encode_jpeg(&image(picture)?, JPEG_QUALITY))?)
    })?;
    Ok(fs::write(dir.join("pairs.txt"), pairs(options))?)
}

/// Every other shot of a person with the first one, and as many of the first one with a shot of
/// somebody else; the people of a fold are in no other.
fn pairs(options: &Options) -> String {
    let per_fold = options.people / FOLDS;
    let mut random = Random::new(options.people as u64);
    let kinds = per_fold * options.shots.saturating_sub(1);
    let mut text = format!("{FOLDS}\t{kinds}\n");
    for fold in 0..FOLDS {
        let members = fold * per_fold..(fold + 1) * per_fold;
        for index in members.clone() {
            for number in 2..=options.shots {
                text += &format!("{}\t1\t{number}\n", name(index));
            }
        }
        for index in members.clone() {
            for number in 2..=options.shots {
                let other = members.start + random.below(per_fold.max(2) - 1);
                let other = if other >= index { other + 1 } else { other };
                text += &format!("{}\t1\t{}\t{number}\n", name(index), name(other));
            }
        }
    }
    text
}

fn write_fixtures(dir: &Path) -> Outcome<()> {
    fs::create_dir_all(dir)?;
    for fixture in fixtures::all() {
        let (picture, _) = fixture.draw();
        let file = picture::encode_jpeg(&image(&picture)?, fixtures::JPEG_QUALITY);
        fs::write(dir.join(format!("{}.jpg", fixture.name)), file)?;
    }
    Ok(())
}

/// What a detector made of one picture.
struct Sight {
    is_plain: bool,
    confidence: f32,
    /// Mean distance of the five points from the drawn ones, in distances between the eyes.
    off: f32,
    extra: usize,
}

fn detect(options: &Options) -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = format!("vendor/onnxruntime/{}/libonnxruntime.so", std::env::consts::ARCH);
    let loader = OnnxLoader::new(Some(&root.join(library)))?;
    let pack = Manifest::embedded().pack(&options.pack, None, &root.join("../shared/models"))?;
    let recognizer = Mutex::new(Recognizer::load(&pack, &loader, 1)?);
    let sights = each_shot(options, |_, number, picture, truth| {
        let mut recognizer = recognizer.lock().unwrap_or_else(PoisonError::into_inner);
        let faces = recognizer.detect(&image(picture)?)?;
        let (hits, extra): (Vec<&Detection>, Vec<&Detection>) =
            faces.iter().partition(|face| overlap(face, truth) >= OVERLAP_MIN);
        let best = hits.iter().max_by(|a, b| a.confidence.total_cmp(&b.confidence));
        Ok(Sight {
            is_plain: number == 0,
            confidence: best.map_or(0.0, |face| face.confidence),
            off: best.map_or(f32::NAN, |face| distance(face, truth)),
            extra: extra.len(),
        })
    })?;
    for (kind, is_plain) in [("frontal", true), ("varied", false)] {
        let of: Vec<&Sight> = sights.iter().filter(|sight| sight.is_plain == is_plain).collect();
        let found = of.iter().filter(|sight| sight.confidence >= CONFIDENCE_MIN).count();
        let offs: Vec<f32> = of.iter().map(|s| s.off).filter(|off| off.is_finite()).collect();
        let extra: usize = of.iter().map(|sight| sight.extra).sum();
        println!(
            "{} {kind}: {found} of {} found with {CONFIDENCE_MIN} or more, points off by {:.1} % of \
             the distance between the eyes, {extra} other detections",
            options.pack,
            of.len(),
            100.0 * offs.iter().sum::<f32>() / offs.len().max(1) as f32,
        );
    }
    Ok(())
}

fn overlap(face: &Detection, truth: &Truth) -> f32 {
    let [x, y, width, height] = truth.bounds;
    let found = face.bounds;
    let across = (found.right().min(x + width) - found.x.max(x)).max(0.0);
    let down = (found.bottom().min(y + height) - found.y.max(y)).max(0.0);
    across * down / (found.area() + width * height - across * down)
}

fn distance(face: &Detection, truth: &Truth) -> f32 {
    let [a, b] = [truth.points[0], truth.points[1]];
    let eyes = (b[0] - a[0]).hypot(b[1] - a[1]);
    let off = |(found, [x, y]): (&facelatch::face::geometry::Point, [f32; 2])| {
        (found.x - x).hypot(found.y - y)
    };
    face.landmarks.iter().zip(truth.points).map(off).sum::<f32>() / 5.0 / eyes
}
