//! Picture files in and out: JPEG and PNG decoding with limits, JPEG encoding. Pure.
//!
//! The header is read and judged before a pixel is allocated, so a file that claims to be huge
//! costs nothing. Frames of MJPEG cameras decode like files, also those that leave out the Huffman
//! tables (they mean the standard ones).
//!
//! The decoder itself is lenient: it fills what is missing of a truncated JPEG with grey. A half
//! grey face must not be enrolled, so the file is walked first, from marker to marker, and refused
//! when it ends before its end marker.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use thiserror::Error;

use crate::face::image::Image;

/// Most pixels of a picture that is decoded: 50 million, about 8660x5773.
pub const PICTURE_PIXELS_MAX: u64 = 50_000_000;
/// Longest side of a picture that is decoded, in pixels.
pub const PICTURE_SIDE_PX_MAX: u32 = 16_384;
/// Most scans of a JPEG file. Ordinary progressive files have about ten; each one visits every
/// pixel, so a small file with thousands of them would keep a worker busy for minutes.
pub const JPEG_SCANS_MAX: usize = 100;
/// What a decoder may allocate: the largest picture at 16 bit with alpha, and 16 MiB to work in.
const DECODER_BYTES_MAX: u64 = PICTURE_PIXELS_MAX * 8 + (16 << 20);
/// Longest side that a JPEG header can express, in pixels.
const JPEG_SIDE_PX_MAX: u32 = 65_535;

/// Why a file is not a usable picture.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PictureError {
    /// Neither JPEG nor PNG, or damaged.
    #[error("the file cannot be decoded as JPEG or PNG: {reason}")]
    Undecodable {
        /// What the decoder said.
        reason: String,
    },
    /// More pixels than the limit; refused before decoding.
    #[error("the picture has {width}x{height} pixels, more than the limit")]
    TooLarge {
        /// Columns in the header.
        width: u32,
        /// Rows in the header.
        height: u32,
    },
}

/// Decodes a JPEG or PNG file into RGB, upright by its EXIF orientation; transparency is laid on
/// white.
pub fn decode(file: &[u8]) -> Result<Image, PictureError> {
    let completed;
    let file = match image::guess_format(file).map_err(undecodable)? {
        ImageFormat::Jpeg => match walk_jpeg(file)? {
            HuffmanTables::Present => file,
            HuffmanTables::Missing => {
                completed = [&file[..2], &STANDARD_HUFFMAN_TABLES, &file[2..]].concat();
                &completed
            }
        },
        ImageFormat::Png => file,
        other => return Err(undecodable(format!("it is a {other:?} file"))),
    };
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(undecodable)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > PICTURE_SIDE_PX_MAX || pixels > PICTURE_PIXELS_MAX {
        return Err(PictureError::TooLarge { width, height });
    }
    let orientation = decoder.orientation().map_err(undecodable)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    Image::from_rgb(width, height, rgb_on_white(picture)).map_err(undecodable)
}

/// Encodes a JPEG file; `quality` 1 to 100. A picture with a side longer than a JPEG file can
/// have (65,535 px) is scaled down to it.
///
/// # Panics
/// Never: the size fits and memory takes every byte.
pub fn encode_jpeg(image: &Image, quality: u8) -> Vec<u8> {
    if image.width().max(image.height()) > JPEG_SIDE_PX_MAX {
        return encode_jpeg(&image.resized(JPEG_SIDE_PX_MAX), quality);
    }
    let mut file = Vec::new();
    let (width, height) = (image.width() as u16, image.height() as u16);
    jpeg_encoder::Encoder::new(&mut file, quality.clamp(1, 100))
        .encode(image.pixels(), width, height, jpeg_encoder::ColorType::Rgb)
        .expect("the size fits and a vector takes every byte");
    file
}

fn undecodable(reason: impl ToString) -> PictureError {
    PictureError::Undecodable { reason: reason.to_string() }
}

fn rgb_on_white(picture: DynamicImage) -> Vec<u8> {
    if !picture.color().has_alpha() {
        return picture.into_rgb8().into_raw();
    }
    let over_white = |value: u8, alpha: u8| {
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let rgba = picture.into_rgba8().into_raw();
    rgba.chunks_exact(4)
        .flat_map(|pixel| [0, 1, 2].map(|channel| over_white(pixel[channel], pixel[3])))
        .collect()
}

/// Whether a JPEG file brings the tables that its scans are coded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HuffmanTables {
    Present,
    Missing,
}

/// Follows the markers of a JPEG file to its end marker.
fn walk_jpeg(file: &[u8]) -> Result<HuffmanTables, PictureError> {
    let truncated = || undecodable("the JPEG file ends before its end marker");
    let mut tables = HuffmanTables::Missing;
    let mut scans = 0;
    // Behind the start marker, which the format was recognised by.
    let mut at = 2;
    loop {
        at += file.get(at..).and_then(next_marker).ok_or_else(truncated)?;
        let marker = file[at + 1];
        at += 2;
        match marker {
            0xd9 => return Ok(tables),
            // Restarts, and the markers without content.
            0x01 | 0xd0..=0xd8 => continue,
            0xc4 => tables = HuffmanTables::Present,
            0xda => scans += 1,
            _ => {}
        }
        if scans > JPEG_SCANS_MAX {
            return Err(undecodable(format!("the JPEG file has over {JPEG_SCANS_MAX} scans")));
        }
        let length = file.get(at..at + 2).ok_or_else(truncated)?;
        at += usize::from(u16::from_be_bytes([length[0], length[1]]));
    }
}

/// Distance to the next marker; stuffed and fill bytes are none.
fn next_marker(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff))
}

/// Segments with the four Huffman tables of ITU-T T.81, annex K.3: luminance and chrominance, DC
/// and AC.
#[rustfmt::skip]
const STANDARD_HUFFMAN_TABLES: [u8; 432] = [
    0xff, 0xc4, 0x00, 0x1f, 0x00, 0x00, 0x01, 0x05, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a,
    0x0b, 0xff, 0xc4, 0x00, 0xb5, 0x10, 0x00, 0x02, 0x01, 0x03, 0x03, 0x02, 0x04, 0x03, 0x05, 0x05,
    0x04, 0x04, 0x00, 0x00, 0x01, 0x7d, 0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31,
    0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42,
    0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18,
    0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43,
    0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63,
    0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
    0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8,
    0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6,
    0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2,
    0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xff, 0xc4, 0x00, 0x1f, 0x01, 0x00, 0x03, 0x01,
    0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02,
    0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0xff, 0xc4, 0x00, 0xb5, 0x11, 0x00, 0x02,
    0x01, 0x02, 0x04, 0x04, 0x03, 0x04, 0x07, 0x05, 0x04, 0x04, 0x00, 0x01, 0x02, 0x77, 0x00, 0x01,
    0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
    0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62,
    0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a,
    0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a,
    0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
    0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3,
    0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];
