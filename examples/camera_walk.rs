//! Makes the frames of a camera that somebody stands before, out of one picture: `camera_walk
//! WIDTHxHEIGHT COUNT FOLDER [PICTURE]` writes `FOLDER/001.jpg` and so on; without a picture, an empty
//! room.
//!
//! The picture fills the frame. From frame to frame it moves by some pixels, its brightness sways,
//! and every pixel has noise of its own, as with a hand-held picture and a real sensor: no two frames
//! are equal. The same arguments give the same frames.

use std::{error::Error, fs, path::Path};

use image::Rgb;
use image::RgbImage;
use image::imageops::FilterType;
use jpeg_encoder::ColorType;
use jpeg_encoder::Encoder;

/// How far the picture moves, in pixels to each side.
const SHIFT_PX: u32 = 6;
/// How much the brightness sways, in grey levels to each side.
const SWAY: i32 = 4;
/// How much noise a pixel has, in grey levels to each side.
const NOISE: i32 = 3;
const QUALITY: u8 = 88;

/// Xorshift: the same numbers everywhere, without a dependency.
struct Dice(u32);

impl Dice {
    /// From `-most` to `most`.
    fn within(&mut self, most: i32) -> i32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 8) as i32 % (2 * most + 1) - most
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [size, count, folder, picture @ ..] = words.as_slice() else {
        return Err("usage: camera_walk WIDTHxHEIGHT COUNT FOLDER [PICTURE]".into());
    };
    let (width, height) = size.split_once('x').ok_or("SIZE is WIDTHxHEIGHT")?;
    let (width, height): (u32, u32) = (width.parse()?, height.parse()?);
    let picture = match picture.first() {
        Some(file) => image::open(file)?.to_rgb8(),
        None => RgbImage::from_fn(width, height, |x, y| {
            Rgb([(80 + x / 8) as u8, 110, (90 + y / 8) as u8])
        }),
    };
    let scene = fill(&picture, width, height);
    fs::create_dir_all(folder)?;
    let mut dice = Dice(0x9e37_79b9);
    for number in 1..=count.parse::<u32>()? {
        let frame = frame(&scene, width, height, &mut dice);
        let file = Path::new(folder).join(format!("{number:03}.jpg"));
        Encoder::new_file(file, QUALITY)?.encode(
            &frame,
            u16::try_from(width)?,
            u16::try_from(height)?,
            ColorType::Rgb,
        )?;
    }
    Ok(())
}

/// The picture, so large that it fills a frame wherever it moves. A tall one fills the width, and its
/// upper part is kept, where the face is; another one fills the height, and mirrors beside it what
/// may be missing there.
fn fill(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (wide, tall) = (width + 2 * SHIFT_PX, height + 2 * SHIFT_PX);
    let (columns, rows) = (f64::from(picture.width()), f64::from(picture.height()));
    let scale = if columns < rows { f64::from(wide) / columns } else { f64::from(tall) / rows };
    let columns = (columns * scale).round() as u32;
    let rows = ((rows * scale).round() as u32).max(tall);
    let scaled = image::imageops::resize(picture, columns, rows, FilterType::CatmullRom);
    RgbImage::from_fn(wide, tall, |x, y| {
        let from_left = i64::from(x) + (i64::from(columns) - i64::from(wide)) / 2;
        let there_and_back = from_left.rem_euclid(2 * i64::from(columns)) as u32;
        *scaled.get_pixel(there_and_back.min(2 * columns - 1 - there_and_back), y)
    })
}

fn frame(scene: &RgbImage, width: u32, height: u32, dice: &mut Dice) -> Vec<u8> {
    let mut shift = || (SHIFT_PX as i32 + dice.within(SHIFT_PX as i32)) as u32;
    let (left, top) = (shift(), shift());
    let sway = dice.within(SWAY);
    let view = image::imageops::crop_imm(scene, left, top, width, height).to_image();
    let noisy = |value: u8| (i32::from(value) + sway + dice.within(NOISE)).clamp(0, 255) as u8;
    view.into_raw().into_iter().map(noisy).collect()
}
