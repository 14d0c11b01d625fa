//! The outer form of JPEG: where a file ends, how large its picture is, and the Huffman tables
//! that cameras leave out. Pure; pixels are left to `picture`.
//!
//! A concatenated MJPEG file has no index, so its pictures are found by walking their segments.
//! Searching for the end marker alone would cut at the end of a thumbnail that lies inside an
//! `APP1` segment.

use std::borrow::Cow;

/// Marker bytes after 0xFF (ITU-T T.81, table B.1).
const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;
const DEFINE_HUFFMAN: u8 = 0xC4;

/// What the walk has found so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The file goes on; call again with more bytes.
    More,
    /// The file ends before this offset.
    End(usize),
    /// What follows this offset is not part of a JPEG file; at least 1.
    Broken(usize),
}

/// Walks one JPEG file whose bytes arrive in pieces; never looks at a byte of a segment twice.
#[derive(Debug, Default)]
pub struct JpegScanner {
    at: usize,
    in_scan: bool,
}

impl JpegScanner {
    /// Goes on from where the last call stopped. `bytes` begins with the start marker and is the
    /// same as before, or longer.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        loop {
            if self.in_scan {
                match end_of_entropy(bytes, self.at) {
                    Ok(at) => (self.at, self.in_scan) = (at, false),
                    Err(at) => {
                        self.at = at;
                        return Scan::More;
                    }
                }
            }
            match segment(bytes, self.at) {
                Segment::Cut => return Scan::More,
                Segment::NotAMarker => return Scan::Broken(self.at.max(1)),
                Segment::Marker { code: END_OF_IMAGE, next, .. } => return Scan::End(next),
                Segment::Marker { code: START_OF_IMAGE, .. } if self.at > 0 => {
                    return Scan::Broken(self.at);
                }
                Segment::Marker { code, next, .. } => {
                    self.at = next;
                    self.in_scan = code == START_OF_SCAN;
                }
            }
        }
    }
}

/// Offset of the first start marker that another marker follows.
pub fn find_start(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|three| three == [0xFF, START_OF_IMAGE, 0xFF])
}

/// Columns and rows that the frame header states; `None` before one is seen.
pub fn size_px(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 0;
    while let Segment::Marker { code, body, next } = segment(bytes, at) {
        if is_frame_header(code) {
            let field = |at: usize| {
                Some(u32::from(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?])))
            };
            return Some((field(3)?, field(1)?));
        }
        if code == START_OF_SCAN || code == END_OF_IMAGE {
            return None;
        }
        at = next;
    }
    None
}

/// The file with Huffman tables: cameras may leave out the standard ones (UVC 1.5, MJPEG payload,
/// and every AVI with MJPG), which a decoder of JPEG files does not know.
pub fn with_huffman_tables(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut at = 0;
    while let Segment::Marker { code, next, .. } = segment(bytes, at) {
        match code {
            DEFINE_HUFFMAN | END_OF_IMAGE => break,
            START_OF_SCAN => {
                let mut whole = Vec::with_capacity(bytes.len() + STANDARD_TABLES.len());
                whole.extend_from_slice(&bytes[..at]);
                whole.extend_from_slice(&STANDARD_TABLES);
                whole.extend_from_slice(&bytes[at..]);
                return Cow::Owned(whole);
            }
            _ => at = next,
        }
    }
    Cow::Borrowed(bytes)
}

enum Segment<'a> {
    /// More bytes are needed to know.
    Cut,
    NotAMarker,
    Marker {
        code: u8,
        body: &'a [u8],
        next: usize,
    },
}

/// The segment at `at`, with its body after the length field.
fn segment(bytes: &[u8], at: usize) -> Segment<'_> {
    let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else {
        return Segment::Cut;
    };
    if rest[0] != 0xFF {
        return Segment::NotAMarker;
    }
    // Any number of 0xFF may stand before the code (T.81, B.1.1.2).
    let Some(fill) = rest.iter().position(|byte| *byte != 0xFF) else {
        return Segment::Cut;
    };
    let (code, after_code) = (rest[fill], at + fill + 1);
    match code {
        0x00 => Segment::NotAMarker,
        START_OF_IMAGE | END_OF_IMAGE | 0x01 | 0xD0..=0xD7 => {
            Segment::Marker { code, body: &[], next: after_code }
        }
        _ => {
            let Some(&[high, low]) = bytes.get(after_code..after_code + 2) else {
                return Segment::Cut;
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length < 2 {
                return Segment::NotAMarker;
            }
            match bytes.get(after_code + 2..after_code + length) {
                Some(body) => Segment::Marker { code, body, next: after_code + length },
                None => Segment::Cut,
            }
        }
    }
}

/// Offset of the marker that ends the entropy-coded data at `at`, or where to go on looking.
fn end_of_entropy(bytes: &[u8], at: usize) -> Result<usize, usize> {
    let mut at = at;
    loop {
        let Some(found) = bytes[at..].iter().position(|byte| *byte == 0xFF) else {
            return Err(bytes.len());
        };
        at += found;
        match bytes.get(at + 1) {
            None => return Err(at),
            // A stuffed zero, a restart marker, or a fill byte.
            Some(0x00 | 0xD0..=0xD7) => at += 2,
            Some(0xFF) => at += 1,
            Some(_) => return Ok(at),
        }
    }
}

fn is_frame_header(code: u8) -> bool {
    matches!(code, 0xC0..=0xCF) && !matches!(code, DEFINE_HUFFMAN | 0xC8 | 0xCC)
}

/// The tables of T.81, K.3.3, as one `DHT` segment: DC and AC for luminance, then for chrominance.
#[rustfmt::skip]
const STANDARD_TABLES: [u8; 420] = [
    0xFF, DEFINE_HUFFMAN, 0x01, 0xA2,
    0x00, 0x00, 0x01, 0x05, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B,
    0x10, 0x00, 0x02, 0x01, 0x03, 0x03, 0x02, 0x04, 0x03, 0x05, 0x05, 0x04, 0x04, 0x00, 0x00, 0x01,
    0x7D, 0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61,
    0x07, 0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1,
    0xF0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27,
    0x28, 0x29, 0x2A, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88,
    0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6,
    0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3, 0xC4,
    0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1,
    0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7,
    0xF8, 0xF9, 0xFA,
    0x01, 0x00, 0x03, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B,
    0x11, 0x00, 0x02, 0x01, 0x02, 0x04, 0x04, 0x03, 0x04, 0x07, 0x05, 0x04, 0x04, 0x00, 0x01, 0x02,
    0x77, 0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61,
    0x71, 0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52,
    0xF0, 0x15, 0x62, 0x72, 0xD1, 0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A,
    0x26, 0x27, 0x28, 0x29, 0x2A, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47,
    0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67,
    0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x82, 0x83, 0x84, 0x85, 0x86,
    0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4,
    0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2,
    0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9,
    0xDA, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7,
    0xF8, 0xF9, 0xFA,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A picture with enough detail that its data holds many stuffed bytes.
    fn picture(width: u16, height: u16, quality: u8) -> Vec<u8> {
        let mut state = 7u32;
        let pixels: Vec<u8> = (0..usize::from(width) * usize::from(height) * 3)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut file = Vec::new();
        jpeg_encoder::Encoder::new(&mut file, quality)
            .encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        file
    }

    fn with_thumbnail(file: &[u8], thumbnail: &[u8]) -> Vec<u8> {
        let mut whole = file[..2].to_vec();
        whole.extend([0xFF, 0xE1]);
        whole.extend(u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes());
        whole.extend(thumbnail);
        whole.extend(&file[2..]);
        whole
    }

    fn without_tables(file: &[u8]) -> Vec<u8> {
        let (mut at, mut kept) = (0, Vec::new());
        while let Segment::Marker { code, next, .. } = segment(file, at) {
            if code == START_OF_SCAN {
                break;
            }
            if code != DEFINE_HUFFMAN {
                kept.extend(&file[at..next]);
            }
            at = next;
        }
        kept.extend(&file[at..]);
        kept
    }

    fn decode(file: &[u8]) -> image::ImageResult<Vec<u8>> {
        image::load_from_memory_with_format(file, image::ImageFormat::Jpeg)
            .map(|image| image.to_rgb8().into_raw())
    }

    #[test]
    fn the_end_of_the_file_is_found_behind_a_thumbnail() {
        let file = with_thumbnail(&picture(64, 48, 95), &picture(16, 12, 50));
        let mut two = file.clone();
        two.extend(picture(8, 8, 50));
        assert_eq!(JpegScanner::default().scan(&two), Scan::End(file.len()));
        assert_eq!(size_px(&two), Some((64, 48)));
    }

    #[test]
    fn a_progressive_file_has_one_end() {
        let mut file = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut file, 90);
        encoder.set_progressive(true);
        encoder.encode(&[90; 32 * 32 * 3], 32, 32, jpeg_encoder::ColorType::Rgb).unwrap();
        assert_eq!(JpegScanner::default().scan(&file), Scan::End(file.len()));
    }

    #[test]
    fn a_file_that_stops_half_way_is_broken_where_the_next_begins() {
        let file = picture(64, 48, 90);
        let half = file.len() / 2;
        let mut torn = file[..half].to_vec();
        torn.extend(&file);
        assert_eq!(JpegScanner::default().scan(&torn), Scan::Broken(half));
    }

    #[test]
    fn left_out_tables_are_put_back() {
        let file = picture(40, 24, 90);
        let bare = without_tables(&file);
        assert!(bare.len() < file.len());
        assert!(decode(&bare).is_err(), "a decoder of files needs the tables");
        assert_eq!(decode(&with_huffman_tables(&bare)).unwrap(), decode(&file).unwrap());
        assert!(matches!(with_huffman_tables(&file), Cow::Borrowed(_)));
    }

    #[test]
    fn the_start_is_found_in_garbage() {
        assert_eq!(find_start(&[0, 0xFF, 0xD8, 0, 0xFF, 0xD8, 0xFF, 0xE0]), Some(4));
        assert_eq!(find_start(&[0xFF, 0xD8]), None);
        assert_eq!(size_px(b"not a picture"), None);
    }

    proptest! {
        #[test]
        fn arrival_in_pieces_changes_nothing(cuts in prop::collection::vec(1usize..400, 1..20)) {
            let file = with_thumbnail(&picture(32, 24, 80), &picture(8, 8, 50));
            let mut scanner = JpegScanner::default();
            let mut have = 0;
            for cut in cuts.iter().cycle() {
                have = (have + cut).min(file.len());
                match scanner.scan(&file[..have]) {
                    Scan::More => prop_assert!(have < file.len()),
                    end => { prop_assert_eq!(end, Scan::End(file.len())); break }
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut file = vec![0xFF, 0xD8];
            file.extend(bytes);
            match JpegScanner::default().scan(&file) {
                Scan::More => {}
                Scan::End(at) | Scan::Broken(at) => prop_assert!(at >= 1 && at <= file.len()),
            }
            let _ = (size_px(&file), with_huffman_tables(&file), find_start(&file));
        }
    }
}
