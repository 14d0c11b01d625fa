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

use crate::camera::jpeg::with_huffman_tables;
use crate::face::image::Image;

/// Most pixels of a picture that is decoded: 25 million, about 5770x4330. Decoded they take 75 MB,
/// and up to 200 MB for a moment when the file has 16 bits a channel; a board of 1 GB with several
/// workers must survive that.
pub const PICTURE_PIXELS_MAX: u64 = 25_000_000;
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
        ImageFormat::Jpeg => {
            walk_jpeg(file)?;
            completed = with_huffman_tables(file);
            &*completed
        }
        ImageFormat::Png => {
            // The decoder allocates a row before it answers the size, so it is read here first.
            let [width, height] = png_size(file);
            check_size(width, height)?;
            file
        }
        other => return Err(undecodable(format!("it is a {other:?} file"))),
    };
    let mut reader =
        ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(undecodable)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
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

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err` by name")]
fn undecodable(reason: impl ToString) -> PictureError {
    PictureError::Undecodable { reason: reason.to_string() }
}

fn check_size(width: u32, height: u32) -> Result<(), PictureError> {
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > PICTURE_SIDE_PX_MAX || pixels > PICTURE_PIXELS_MAX {
        return Err(PictureError::TooLarge { width, height });
    }
    Ok(())
}

/// Columns and rows of a PNG file, whose first chunk begins with them; 0 where it ends before.
fn png_size(file: &[u8]) -> [u32; 2] {
    [16, 20].map(|at| {
        let bytes = file.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
    })
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

/// Follows the markers of a JPEG file to its end marker.
fn walk_jpeg(file: &[u8]) -> Result<(), PictureError> {
    let truncated = || undecodable("the JPEG file ends before its end marker");
    let mut scans = 0;
    // Behind the start marker, which the format was recognised by.
    let mut at = 2;
    loop {
        at += file.get(at..).and_then(next_marker).ok_or_else(truncated)?;
        let marker = file[at + 1];
        at += 2;
        match marker {
            0xd9 => return Ok(()),
            // Restarts, and the markers without content.
            0x01 | 0xd0..=0xd8 => continue,
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

#[cfg(test)]
mod tests {
    use image::ImageEncoder;
    use proptest::prelude::*;

    use super::*;

    const WHITE: [u8; 3] = [255; 3];
    const QUARTERS: [[u8; 3]; 4] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], WHITE];

    /// 24x16 pixels in four coloured quarters, as the files in `tests/pictures`.
    fn quarters() -> Image {
        let colour = |index: usize| QUARTERS[(index / 24 / 8) * 2 + (index % 24) / 12];
        Image::from_rgb(24, 16, (0..24 * 16).flat_map(colour).collect()).unwrap()
    }

    fn assert_quarters(name: &str, image: &Image, expected: [[u8; 3]; 4], tolerance: u8) {
        assert_eq!((image.width(), image.height()), (24, 16), "{name}");
        for ((x, y), expected) in [(4, 4), (19, 4), (4, 12), (19, 12)].into_iter().zip(expected) {
            let found = image.pixel(x, y);
            let near = found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= tolerance);
            assert!(near, "{name} at {x},{y}: {found:?}, expected {expected:?}");
        }
    }

    fn png(bytes: &[u8], colour: image::ExtendedColorType) -> Vec<u8> {
        let mut file = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut file);
        encoder.write_image(bytes, 24, 16, colour).unwrap();
        file
    }

    #[test]
    fn every_kind_of_jpeg_and_png_becomes_rgb() {
        let grey = [76, 149, 29, 255].map(|value| [value; 3]);
        let see_through = [QUARTERS[0], QUARTERS[1], WHITE, WHITE];
        let bilevel = [[0; 3], WHITE, [0; 3], WHITE];
        for (name, file, expected, tolerance) in [
            (
                "progressive",
                include_bytes!("../tests/pictures/progressive.jpg").as_slice(),
                QUARTERS,
                4,
            ),
            ("cmyk", include_bytes!("../tests/pictures/cmyk.jpg"), QUARTERS, 4),
            ("grey", include_bytes!("../tests/pictures/grey.jpg"), grey, 4),
            ("palette", include_bytes!("../tests/pictures/palette.png"), QUARTERS, 0),
            (
                "palette_transparent",
                include_bytes!("../tests/pictures/palette_transparent.png"),
                see_through,
                0,
            ),
            ("bilevel", include_bytes!("../tests/pictures/bilevel.png"), bilevel, 0),
        ] {
            assert_quarters(name, &decode(file).unwrap(), expected, tolerance);
        }
        let baseline = encode_jpeg(&quarters(), 95);
        assert_quarters("baseline", &decode(&baseline).unwrap(), QUARTERS, 6);
    }

    #[test]
    fn deep_and_transparent_png_become_rgb() {
        let image = quarters();
        let wide = |value: &u8| (u16::from(*value) * 256 + 20).to_ne_bytes();
        let deep: Vec<u8> = image.pixels().iter().flat_map(wide).collect();
        let deep = png(&deep, image::ExtendedColorType::Rgb16);
        let reds: Vec<u8> = image.pixels().chunks(3).map(|rgb| rgb[0]).collect();
        let grey = png(&reds, image::ExtendedColorType::L8);
        let half: Vec<u8> =
            image.pixels().chunks(3).flat_map(|p| [p[0], p[1], p[2], 128]).collect();
        let half = png(&half, image::ExtendedColorType::Rgba8);
        let grey_alpha: Vec<u8> = reds.iter().flat_map(|&red| [0, red]).collect();
        let grey_alpha = png(&grey_alpha, image::ExtendedColorType::La8);
        let mixed = QUARTERS.map(|rgb| rgb.map(|value| if value == 0 { 127 } else { 255 }));
        let (black, white) = ([0; 3], WHITE);
        for (name, file, expected) in [
            ("16 bit", deep, QUARTERS),
            ("grey", grey, [white, black, black, white]),
            ("half transparent", half, mixed),
            ("grey with alpha", grey_alpha, [black, white, white, black]),
        ] {
            assert_quarters(name, &decode(&file).unwrap(), expected, 1);
        }
    }

    /// A JPEG file with an EXIF segment that holds this orientation.
    fn oriented(orientation: u8) -> Vec<u8> {
        let mut tiff = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
        let file = encode_jpeg(&quarters(), 95);
        let length = (tiff.len() as u16 + 2).to_be_bytes();
        [&file[..2], &[0xff, 0xe1], &length, &tiff, &file[2..]].concat()
    }

    #[test]
    fn exif_orientation_is_honoured() {
        let [red, green, blue, white] = QUARTERS;
        // What lies upright at the top left, top right, bottom left, bottom right.
        for (orientation, wide, expected) in [
            (1, true, [red, green, blue, white]),
            (2, true, [green, red, white, blue]),
            (3, true, [white, blue, green, red]),
            (4, true, [blue, white, red, green]),
            (5, false, [red, blue, green, white]),
            (6, false, [blue, red, white, green]),
            (7, false, [white, green, blue, red]),
            (8, false, [green, white, red, blue]),
        ] {
            let image = decode(&oriented(orientation)).unwrap();
            let size = (image.width(), image.height());
            assert_eq!(size, if wide { (24, 16) } else { (16, 24) }, "{orientation}");
            let (right, bottom) = (size.0 - 4, size.1 - 4);
            let corners = [(4, 4), (right, 4), (4, bottom), (right, bottom)];
            for ((x, y), expected) in corners.into_iter().zip(expected) {
                let found = image.pixel(x, y);
                let near = found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 16);
                assert!(near, "{orientation} at {x},{y}: {found:?}, expected {expected:?}");
            }
        }
    }

    #[test]
    fn frames_without_huffman_tables_mean_the_standard_ones() {
        let file = encode_jpeg(&quarters(), 90);
        let mut bare = file[..2].to_vec();
        let mut at = 2;
        let mut left_out = 0;
        while file[at + 1] != 0xda {
            let end = at + 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
            if file[at + 1] == 0xc4 {
                left_out += 1;
            } else {
                bare.extend(&file[at..end]);
            }
            at = end;
        }
        bare.extend(&file[at..]);
        assert!(left_out > 0);
        assert_eq!(decode(&bare).unwrap(), decode(&file).unwrap());
    }

    #[test]
    fn a_truncated_file_is_refused_wherever_it_ends() {
        let jpeg = encode_jpeg(&quarters(), 95);
        let png = png(quarters().pixels(), image::ExtendedColorType::Rgb8);
        let progressive = include_bytes!("../tests/pictures/progressive.jpg").to_vec();
        for (file, needed) in [(&jpeg, jpeg.len()), (&progressive, progressive.len())] {
            for length in 0..needed {
                assert!(decode(&file[..length]).is_err(), "JPEG of {length} bytes");
            }
        }
        // The last 12 bytes of a PNG are its end chunk, which carries nothing.
        for length in 0..png.len() - 12 {
            assert!(decode(&png[..length]).is_err(), "PNG of {length} bytes");
        }
    }

    /// The start of a PNG file that claims a size.
    fn png_header(width: u32, height: u32) -> Vec<u8> {
        let mut header = b"IHDR".to_vec();
        header.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
        header.extend([8, 2, 0, 0, 0]);
        let crc = |bytes: &[u8]| {
            !bytes.iter().fold(!0u32, |crc, byte| {
                (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                    (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
                })
            })
        };
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
        file.extend(&header);
        file.extend(crc(&header).to_be_bytes());
        file.extend(b"\0\0\0\0IDAT");
        file.extend(crc(b"IDAT").to_be_bytes());
        file
    }

    #[test]
    fn a_huge_picture_is_refused_by_its_header() {
        for (width, height) in [(16_385, 1), (1, 16_385), (5001, 5000), (2_000_000_000, 2)] {
            let refused = PictureError::TooLarge { width, height };
            assert_eq!(decode(&png_header(width, height)), Err(refused));
        }
        // Within the limit it is the missing content that is wrong.
        let undecodable = decode(&png_header(16_384, 1500));
        assert!(matches!(undecodable, Err(PictureError::Undecodable { .. })), "{undecodable:?}");
        let mut jpeg = encode_jpeg(&quarters(), 90);
        let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decode(&jpeg), Err(PictureError::TooLarge { width: 65535, height: 65535 }));
    }

    #[test]
    fn thousands_of_scans_are_refused() {
        let mut file = include_bytes!("../tests/pictures/progressive.jpg").to_vec();
        let scan = file.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        let scans = file[scan..file.len() - 2].repeat(JPEG_SCANS_MAX);
        file.splice(scan.., scans);
        file.extend([0xff, 0xd9]);
        let reason = decode(&file).unwrap_err().to_string();
        assert!(reason.contains("scans"), "{reason}");
    }

    #[test]
    fn other_files_are_refused_by_name_or_at_once() {
        for (file, word) in [
            (b"Second image".as_slice(), "decoded"),
            (b"", "decoded"),
            (b"GIF89a\x01\0\x01\0", "Gif"),
            (b"\xff\xd8\xff", "ends before"),
        ] {
            let error = decode(file).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn quality_out_of_range_is_the_nearest_in_range() {
        for quality in [0, 1, 100, 255] {
            assert_eq!(decode(&encode_jpeg(&quarters(), quality)).unwrap().width(), 24);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn damaged_files_never_panic(
            form in 0usize..3,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        ) {
            let mut file = match form {
                0 => encode_jpeg(&quarters(), 90),
                1 => include_bytes!("../tests/pictures/progressive.jpg").to_vec(),
                _ => include_bytes!("../tests/pictures/palette_transparent.png").to_vec(),
            };
            for (place, value) in damage {
                let place = place.index(file.len());
                file[place] = value;
            }
            // A damaged size is bounded by the limits; keep the test quick.
            if let Ok(image) = decode(&file) {
                prop_assert!(image.width() >= 1);
            }
        }

        #[test]
        fn what_is_encoded_decodes_to_nearly_the_same(width in 1u32..40, height in 1u32..40, grey in 0u8..) {
            let image = Image::from_rgb(width, height, vec![grey; (width * height * 3) as usize]).unwrap();
            let back = decode(&encode_jpeg(&image, 90)).unwrap();
            prop_assert_eq!((back.width(), back.height()), (width, height));
            prop_assert!(back.pixels().iter().all(|value| value.abs_diff(grey) <= 3));
        }
    }
}
