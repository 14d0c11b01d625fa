//! Raw frames become pictures: YUYV, NV12, GREY, MJPEG and PNG to packed RGB. Pure.
//!
//! YUV is read as BT.601 in limited range (luma 16 to 235), which is what UVC cameras deliver
//! unless they state otherwise, and V4L2's default for cameras. GREY is taken as it is, 0 to 255:
//! it comes from infrared sensors, which use the whole range.

use std::fmt;

use thiserror::Error;

use crate::face::image::Image;
use crate::picture::PICTURE_SIDE_PX_MAX;
use crate::picture::PictureError;
use crate::picture::decode;

/// How the bytes of a frame are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// A JPEG file per frame; the standard Huffman tables may be left out.
    Mjpeg,
    /// 4:2:2, packed Y0 U Y1 V.
    Yuyv,
    /// 4:2:0, a Y plane and an interleaved UV plane.
    Nv12,
    /// 8-bit luma only.
    Grey,
    /// A PNG file per frame; only replayed folders deliver it.
    Png,
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Mjpeg => "MJPEG",
            Self::Yuyv => "YUYV",
            Self::Nv12 => "NV12",
            Self::Grey => "GREY",
            Self::Png => "PNG",
        })
    }
}

/// Size of a frame in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row of the first plane to the next; 0 means without padding.
    pub stride: u32,
}

/// Why the bytes of a frame are no picture.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PixelError {
    /// Fewer bytes than the size needs: the transfer was cut short.
    #[error(
        "a {format} frame of {}x{} with {} bytes a row needs {expected} bytes, there are {bytes}",
        layout.width, layout.height, layout.stride
    )]
    Short {
        /// Arrangement.
        format: PixelFormat,
        /// Size that was claimed.
        layout: Layout,
        /// Bytes that the size needs.
        expected: usize,
        /// Bytes that arrived.
        bytes: usize,
    },
    /// The driver claims rows that are shorter than their pixels, or absurdly long.
    #[error("a row of {width} {format} pixels needs {expected} bytes, the driver says {stride}")]
    Stride {
        /// Arrangement.
        format: PixelFormat,
        /// Columns.
        width: u32,
        /// Bytes of a row's pixels.
        expected: usize,
        /// Bytes of a row as claimed.
        stride: u32,
    },
    /// No pixels, or more on a side than any picture may have.
    #[error("a frame of {width}x{height} pixels is not between 1x1 and {max}x{max}",
        max = PICTURE_SIDE_PX_MAX)]
    Size {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The compressed picture is damaged.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

/// Makes RGB of a frame's bytes. The layout of a compressed frame is not used: the file knows.
pub fn to_image(format: PixelFormat, layout: Layout, bytes: &[u8]) -> Result<Image, PixelError> {
    match format {
        PixelFormat::Mjpeg | PixelFormat::Png => Ok(decode(bytes)?),
        PixelFormat::Yuyv => yuyv(layout, bytes),
        PixelFormat::Nv12 => nv12(layout, bytes),
        PixelFormat::Grey => grey(layout, bytes),
    }
}

fn yuyv(layout: Layout, bytes: &[u8]) -> Result<Image, PixelError> {
    let row_bytes = layout.width.div_ceil(2) as usize * 4;
    let rows = Plane::of(PixelFormat::Yuyv, layout, row_bytes, bytes)?;
    let width = layout.width as usize;
    let mut pixels = vec![0; width * layout.height as usize * 3];
    for (row, out) in rows.rows().zip(pixels.chunks_exact_mut(width * 3)) {
        let mut pairs = out.chunks_exact_mut(6);
        for (four, two) in row.chunks_exact(4).zip(&mut pairs) {
            let chroma = Chroma::new(four[1], four[3]);
            two[..3].copy_from_slice(&chroma.rgb(four[0]));
            two[3..].copy_from_slice(&chroma.rgb(four[2]));
        }
        let odd = pairs.into_remainder();
        if !odd.is_empty() {
            let four = &row[row_bytes - 4..];
            odd.copy_from_slice(&Chroma::new(four[1], four[3]).rgb(four[0]));
        }
    }
    Ok(wrapped(layout, pixels))
}

fn nv12(layout: Layout, bytes: &[u8]) -> Result<Image, PixelError> {
    let format = PixelFormat::Nv12;
    let width = layout.width as usize;
    let luma = Plane::of(format, layout, width, bytes)?;
    let luma_bytes = luma.stride * layout.height as usize;
    // An odd stride leaves half a colour pair over, so the colour plane's rows are rounded up.
    let chroma_layout = Layout {
        width: layout.width.div_ceil(2) * 2,
        height: layout.height.div_ceil(2),
        stride: (luma.stride as u32).next_multiple_of(2),
    };
    let needed = chroma_layout.stride as usize * (chroma_layout.height as usize - 1)
        + chroma_layout.width as usize;
    if bytes.len() < luma_bytes + needed {
        let expected = luma_bytes + needed;
        return Err(PixelError::Short { format, layout, expected, bytes: bytes.len() });
    }
    let chroma =
        Plane::of(format, chroma_layout, chroma_layout.width as usize, &bytes[luma_bytes..])?;
    let mut pixels = vec![0; width * layout.height as usize * 3];
    let chroma_rows = chroma.rows().flat_map(|row| [row, row]);
    let out_rows = pixels.chunks_exact_mut(width * 3);
    for ((luma, chroma), out) in luma.rows().zip(chroma_rows).zip(out_rows) {
        let pairs = luma.chunks(2).zip(chroma.chunks_exact(2)).zip(out.chunks_mut(6));
        for ((luma, uv), out) in pairs {
            let chroma = Chroma::new(uv[0], uv[1]);
            for (luma, out) in luma.iter().zip(out.chunks_exact_mut(3)) {
                out.copy_from_slice(&chroma.rgb(*luma));
            }
        }
    }
    Ok(wrapped(layout, pixels))
}

fn grey(layout: Layout, bytes: &[u8]) -> Result<Image, PixelError> {
    let width = layout.width as usize;
    let plane = Plane::of(PixelFormat::Grey, layout, width, bytes)?;
    let mut pixels = vec![0; width * layout.height as usize * 3];
    for (row, out) in plane.rows().zip(pixels.chunks_exact_mut(width * 3)) {
        for (luma, rgb) in row.iter().zip(out.chunks_exact_mut(3)) {
            rgb.fill(*luma);
        }
    }
    Ok(wrapped(layout, pixels))
}

fn wrapped(layout: Layout, pixels: Vec<u8>) -> Image {
    Image::from_rgb(layout.width, layout.height, pixels)
        .expect("the buffer was made for this size, which `Plane::of` checked")
}

/// Longest row that is believed, in bytes: the longest side with four bytes a pixel, twice.
const STRIDE_BYTES_MAX: usize = PICTURE_SIDE_PX_MAX as usize * 8;

/// Rows of one plane. Invariant: `bytes` holds every row's pixels.
struct Plane<'a> {
    bytes: &'a [u8],
    stride: usize,
    row_bytes: usize,
}

impl<'a> Plane<'a> {
    /// Checks that the rows are there. The last row's padding may be missing: some drivers do not
    /// count it.
    fn of(
        format: PixelFormat,
        layout: Layout,
        row_bytes: usize,
        bytes: &'a [u8],
    ) -> Result<Self, PixelError> {
        let Layout { width, height, stride } = layout;
        let sides = 1..=PICTURE_SIDE_PX_MAX;
        if !sides.contains(&width) || !sides.contains(&height) {
            return Err(PixelError::Size { width, height });
        }
        let used = if stride == 0 { row_bytes } else { stride as usize };
        if used < row_bytes || used > STRIDE_BYTES_MAX {
            return Err(PixelError::Stride { format, width, expected: row_bytes, stride });
        }
        let expected = used * (height as usize - 1) + row_bytes;
        if bytes.len() < expected {
            return Err(PixelError::Short { format, layout, expected, bytes: bytes.len() });
        }
        Ok(Self { bytes, stride: used, row_bytes })
    }

    fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let row_bytes = self.row_bytes;
        self.bytes.chunks(self.stride).filter_map(move |row| row.get(..row_bytes))
    }
}

/// The colour part of BT.601 in limited range, shared by the pixels of a pair. Coefficients in
/// 1/256: 1.164, 1.596, 0.392, 0.813, 2.017.
struct Chroma {
    red: i32,
    green: i32,
    blue: i32,
}

impl Chroma {
    fn new(u: u8, v: u8) -> Self {
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        Self { red: 409 * v + 128, green: 128 - 100 * u - 208 * v, blue: 516 * u + 128 }
    }

    fn rgb(&self, luma: u8) -> [u8; 3] {
        let luma = 298 * (i32::from(luma) - 16);
        [self.red, self.green, self.blue].map(|part| ((luma + part) >> 8).clamp(0, 255) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition in floating point (ITU-R BT.601, 8 bit, limited range).
    fn reference(y: u8, u: u8, v: u8) -> [f64; 3] {
        let y = (f64::from(y) - 16.0) * 255.0 / 219.0;
        let (u, v) = (f64::from(u) - 128.0, f64::from(v) - 128.0);
        let scale = 255.0 / 224.0;
        [
            y + 1.402 * scale * v,
            y - 0.344_136 * scale * u - 0.714_136 * scale * v,
            y + 1.772 * scale * u,
        ]
        .map(|part| part.clamp(0.0, 255.0))
    }

    fn layout(width: u32, height: u32, stride: u32) -> Layout {
        Layout { width, height, stride }
    }

    #[test]
    fn black_white_and_the_primaries() {
        // Values of SMPTE colour bars in BT.601.
        let cases = [
            ([16, 128, 128], [0, 0, 0]),
            ([235, 128, 128], [255, 255, 255]),
            ([81, 90, 240], [255, 0, 0]),
            ([145, 54, 34], [0, 255, 0]),
            ([41, 240, 110], [0, 0, 255]),
        ];
        for ([y, u, v], expected) in cases {
            let image = to_image(PixelFormat::Yuyv, layout(2, 1, 0), &[y, u, y, v]).unwrap();
            for (got, wanted) in image.pixel(1, 0).iter().zip(expected) {
                assert!(i32::from(*got).abs_diff(wanted) <= 2, "{y} {u} {v}: {image:?}");
            }
        }
    }

    #[test]
    fn padding_is_skipped() {
        let bytes = [235, 128, 235, 128, 9, 9, 9, 9, 16, 128, 16, 128];
        let image = to_image(PixelFormat::Yuyv, layout(2, 2, 8), &bytes).unwrap();
        assert_eq!((image.pixel(1, 0), image.pixel(0, 1)), ([255; 3], [0; 3]));
        let grey = to_image(PixelFormat::Grey, layout(1, 2, 3), &[7, 0, 0, 8]).unwrap();
        assert_eq!(grey.pixels(), [7, 7, 7, 8, 8, 8]);
    }

    #[test]
    fn nv12_shares_colour_among_four_pixels() {
        let bytes = [81, 81, 16, 81, 81, 16, 16, 16, 235, 90, 240, 128, 128, 90, 240, 128, 128];
        let image = to_image(PixelFormat::Nv12, layout(3, 3, 0), &bytes);
        // Three rows of three luma bytes, then two colour rows of four.
        let image = image.unwrap();
        assert_eq!(image.pixel(0, 0)[0], 255);
        assert_eq!(image.pixel(1, 1)[0], 255);
        assert_eq!(image.pixel(2, 0), [0; 3]);
        assert_eq!(image.pixel(2, 2), [255; 3]);
    }

    #[test]
    fn impossible_frames_are_named() {
        let cases = [
            (PixelFormat::Yuyv, layout(4, 2, 0), 15, "needs 16 bytes, there are 15"),
            (PixelFormat::Nv12, layout(4, 4, 4), 23, "needs 24 bytes, there are 23"),
            (PixelFormat::Grey, layout(4, 4, 8), 27, "needs 28 bytes, there are 27"),
            (PixelFormat::Yuyv, layout(640, 480, 640), 999_999, "needs 1280 bytes, the driver"),
            (PixelFormat::Grey, layout(0, 4, 0), 10, "between 1x1"),
            (PixelFormat::Grey, layout(1, u32::MAX, 0), 10, "between 1x1"),
            (PixelFormat::Nv12, layout(2, 1, u32::MAX), 10, "the driver says 4294967295"),
            (PixelFormat::Mjpeg, layout(2, 2, 0), 0, "decoded"),
        ];
        for (format, layout, bytes, expected) in cases {
            let error = to_image(format, layout, &vec![0; bytes]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn integers_stay_within_two_of_the_definition(y: u8, u: u8, v: u8) {
            let got = Chroma::new(u, v).rgb(y);
            for (got, wanted) in got.iter().zip(reference(y, u, v)) {
                prop_assert!((f64::from(*got) - wanted).abs() <= 2.0, "{got} {wanted}");
            }
        }

        #[test]
        fn any_size_and_stride_gives_a_picture_or_an_error(
            width in 0u32..40, height in 0u32..40, stride in 0u32..100,
            bytes in prop::collection::vec(any::<u8>(), 0..6000),
        ) {
            for format in [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Grey] {
                if let Ok(image) = to_image(format, layout(width, height, stride), &bytes) {
                    prop_assert_eq!((image.width(), image.height()), (width, height));
                }
            }
        }

        #[test]
        fn every_pixel_comes_from_its_own_place(
            width in 1u32..20, height in 1u32..20, pad in 0u32..9, seed: u8,
        ) {
            let stride = width.div_ceil(2) * 4 + pad;
            let bytes: Vec<u8> = (0..stride * height)
                .map(|at| (at as u8).wrapping_mul(37).wrapping_add(seed))
                .collect();
            let image = to_image(PixelFormat::Yuyv, layout(width, height, stride), &bytes).unwrap();
            for y in 0..height {
                for x in 0..width {
                    let four = &bytes[(y * stride + x / 2 * 4) as usize..][..4];
                    let luma = four[(x % 2 * 2) as usize];
                    prop_assert_eq!(image.pixel(x, y), Chroma::new(four[1], four[3]).rgb(luma));
                }
            }
        }
    }
}
