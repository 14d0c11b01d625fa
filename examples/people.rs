//! Draws people who do not exist (`tests/support/people`):
//!
//! - `people sheet OUT.png [--people N] [--first K]`: one portrait each, to look at
//! - `people folders DIR [--people N] [--shots M] [--first K] [--side PX]`: DIR/people/<name>/*.jpg
//!   and pairs.txt, for `facelatch eval recognition`, the demo (DIR/people) and training
//! - `people fixtures DIR`: the pictures that are committed in `tests/pictures/people`
//! - `people measure [--people N] [--shots M] [--side PX] [--packs P,Q]`: how well the models find
//!   them and tell them apart; needs ONNX Runtime in `vendor/`, and `../shared/models` for another
//!   pack than `builtin`
#![allow(clippy::print_stdout, reason = "a tool that prints a table")]

#[path = "../tests/support/people/mod.rs"]
mod people;

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use facelatch::face::detection::Detection;
use facelatch::face::image::Image;
use facelatch::face::template::Template;
use facelatch::inference::manifest::Manifest;
use facelatch::inference::onnx::OnnxLoader;
use facelatch::picture;
use facelatch::recognition::Recognizer;

use crate::people::fixtures;
use crate::people::maths::Random;
use crate::people::scene;
use crate::people::traits::Person;
use crate::people::{Background, Picture, Shot, Truth, render};

const USAGE: &str = "usage: people sheet OUT.png | folders DIR | fixtures DIR | measure \
    [--people N] [--shots M] [--first K] [--side PX] [--packs P,Q]";
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
    packs: String,
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
        ["measure"] => measure(&options),
        _ => Err(USAGE.into()),
    }
}

fn read(arguments: &[String]) -> Outcome<(Vec<&str>, Options)> {
    let mut options =
        Options { people: 40, shots: 4, first: 0, side: 320, packs: "builtin".into() };
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
            "--packs" => options.packs.clone_from(value),
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

/// A comparison of two shots: fold, then person and number of each.
struct Pair {
    fold: usize,
    first: (usize, usize),
    second: (usize, usize),
}

impl Pair {
    fn is_same(&self) -> bool {
        self.first.0 == self.second.0
    }
}

/// Of each fold every other shot of a person with the first one, then as many of the first one with
/// a shot of somebody else; the people of a fold are in no other.
fn all_pairs(options: &Options) -> Vec<Pair> {
    let per_fold = options.people / FOLDS;
    let mut random = Random::new(options.people as u64);
    let mut all = Vec::new();
    for fold in 0..FOLDS {
        let members = fold * per_fold..(fold + 1) * per_fold;
        let shots = || {
            let numbers = |index| (1..options.shots).map(move |number| (index, number));
            members.clone().flat_map(numbers)
        };
        all.extend(shots().map(|(index, number)| Pair {
            fold,
            first: (index, 0),
            second: (index, number),
        }));
        for (index, number) in shots() {
            let other = members.start + random.below(per_fold.max(2) - 1);
            let other = if other >= index { other + 1 } else { other };
            all.push(Pair { fold, first: (index, 0), second: (other, number) });
        }
    }
    all
}

/// The same in the form of Labeled Faces in the Wild.
fn pairs(options: &Options) -> String {
    let kinds = options.people / FOLDS * options.shots.saturating_sub(1);
    let mut text = format!("{FOLDS}\t{kinds}\n");
    for pair in all_pairs(options) {
        let ((one, first), (two, second)) = (pair.first, pair.second);
        let (first, second) = (first + 1, second + 1);
        let line = if pair.is_same() {
            format!("{}\t{first}\t{second}\n", name(one))
        } else {
            format!("{}\t{first}\t{}\t{second}\n", name(one), name(two))
        };
        text.push_str(&line);
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

/// What the models of a pack made of one picture.
struct Sight {
    shot: (usize, usize),
    confidence: f32,
    /// Mean distance of the five points from the drawn ones, in distances between the eyes.
    off: f32,
    /// Detections beside the drawn face.
    extra: usize,
    template: Option<Template>,
}

fn measure(options: &Options) -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = format!("vendor/onnxruntime/{}/libonnxruntime.so", std::env::consts::ARCH);
    let loader = OnnxLoader::new(Some(&root.join(library)))?;
    let mut recognizers = Vec::new();
    for pack in options.packs.split(',') {
        let pack = Manifest::embedded().pack(pack, None, &root.join("../shared/models"))?;
        recognizers.push(Mutex::new(Recognizer::load(&pack, &loader, 1)?));
    }
    let sights = each_shot(options, |index, number, picture, truth| {
        let image = image(picture)?;
        let look = |recognizer: &Mutex<Recognizer>| {
            let mut recognizer = recognizer.lock().unwrap_or_else(PoisonError::into_inner);
            sight(&mut recognizer, &image, (index, number), truth)
        };
        recognizers.iter().map(look).collect::<Outcome<Vec<Sight>>>()
    })?;
    for (which, pack) in options.packs.split(',').enumerate() {
        let own: Vec<&Sight> = sights.iter().map(|all| &all[which]).collect();
        print_detection(pack, "frontal", own.iter().filter(|sight| sight.shot.1 == 0));
        print_detection(pack, "varied", own.iter().filter(|sight| sight.shot.1 > 0));
        print_verification(pack, options, &own);
    }
    Ok(())
}

fn sight(
    recognizer: &mut Recognizer,
    image: &Image,
    shot: (usize, usize),
    truth: &Truth,
) -> Outcome<Sight> {
    let faces = recognizer.detect(image)?;
    let (hits, extra): (Vec<&Detection>, Vec<&Detection>) =
        faces.iter().partition(|face| overlap(face, truth) >= OVERLAP_MIN);
    let best = hits.into_iter().max_by(|a, b| a.confidence.total_cmp(&b.confidence));
    Ok(Sight {
        shot,
        confidence: best.map_or(0.0, |face| face.confidence),
        off: best.map_or(f32::NAN, |face| distance(face, truth)),
        extra: extra.len(),
        template: best.map(|face| recognizer.embed(image, face)).transpose()?,
    })
}

fn print_detection<'a>(pack: &str, kind: &str, sights: impl Iterator<Item = &'a &'a Sight>) {
    let of: Vec<&Sight> = sights.copied().collect();
    let found = of.iter().filter(|sight| sight.confidence >= CONFIDENCE_MIN).count();
    let offs: Vec<f32> = of.iter().map(|s| s.off).filter(|off| off.is_finite()).collect();
    let extra: usize = of.iter().map(|sight| sight.extra).sum();
    println!(
        "{pack} {kind}: {found} of {} found with {CONFIDENCE_MIN} or more ({} at all), points off by \
         {:.1} % of the distance between the eyes, {extra} other detections",
        of.len(),
        offs.len(),
        100.0 * offs.iter().sum::<f32>() / offs.len().max(1) as f32,
    );
}

/// Accuracy with the threshold of each fold from the others; a face that was not found is an error.
fn print_verification(pack: &str, options: &Options, sights: &[&Sight]) {
    let templates: HashMap<(usize, usize), &Template> =
        sights.iter().filter_map(|sight| Some((sight.shot, sight.template.as_ref()?))).collect();
    let pairs: Vec<(Pair, Option<f32>)> = all_pairs(options)
        .into_iter()
        .map(|pair| {
            let both = templates.get(&pair.first).zip(templates.get(&pair.second));
            let cosine = both.map(|(one, two)| one.cosine(two));
            (pair, cosine)
        })
        .collect();
    let right = |limit: f32, wanted: &dyn Fn(usize) -> bool| {
        let is_right = |(pair, cosine): &&(Pair, Option<f32>)| {
            wanted(pair.fold) && cosine.is_some_and(|cosine| (cosine > limit) == pair.is_same())
        };
        pairs.iter().filter(is_right).count()
    };
    let mut total = 0;
    for fold in 0..FOLDS {
        let best = (0..200)
            .map(|step| step as f32 / 200.0)
            .max_by_key(|limit| right(*limit, &|other| other != fold))
            .unwrap_or_default();
        total += right(best, &|other| other == fold);
    }
    let mean = |is_same: bool| {
        let of = pairs.iter().filter(|(pair, _)| pair.is_same() == is_same);
        let of: Vec<f32> = of.filter_map(|(_, cosine)| *cosine).collect();
        of.iter().sum::<f32>() / of.len().max(1) as f32
    };
    println!(
        "{pack} verification: {total} of {} pairs right ({:.2} %), mean cosine {:.3} of one person, \
         {:.3} of two",
        pairs.len(),
        100.0 * total as f32 / pairs.len().max(1) as f32,
        mean(true),
        mean(false),
    );
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
