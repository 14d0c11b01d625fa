//! Picture files in and out: JPEG and PNG decoding with limits, JPEG encoding. Pure.
//!
//! The header is read and judged before a pixel is allocated, so a file that claims to be huge
//! costs nothing.

use thiserror::Error;

use crate::face::image::Image;

/// Most pixels of a picture that is decoded: 50 million, about 8660x5773.
pub const PICTURE_PIXELS_MAX: u64 = 50_000_000;
/// Longest side of a picture that is decoded, in pixels.
pub const PICTURE_SIDE_PX_MAX: u32 = 16_384;

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
    let _ = file;
    Err(PictureError::Undecodable { reason: "not built yet".into() })
}

/// Encodes a JPEG file; `quality` 1 to 100.
pub fn encode_jpeg(image: &Image, quality: u8) -> Vec<u8> {
    let _ = (image, quality);
    Vec::new()
}
