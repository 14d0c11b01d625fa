//! A picture in memory: packed 8-bit RGB, rows from top to bottom without padding.

use thiserror::Error;

/// Why a buffer is not a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{bytes} bytes cannot hold {width}x{height} RGB pixels, which need {expected}")]
pub struct ImageSizeError {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// What the buffer holds.
    pub bytes: usize,
    /// What it would have to hold.
    pub expected: usize,
}

/// An 8-bit RGB picture. Invariant: `pixels.len() == width * height * 3`, both at least 1.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Image {
    /// Wraps packed RGB rows.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self, ImageSizeError> {
        let expected = width as usize * height as usize * 3;
        if expected == 0 || pixels.len() != expected {
            return Err(ImageSizeError { width, height, bytes: pixels.len(), expected });
        }
        Ok(Self { width, height, pixels })
    }

    /// Columns, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Packed RGB rows, `width * height * 3` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The colour at column `x` and row `y`; both must lie inside.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }
}

impl std::fmt::Debug for Image {
    /// Never the pixels: a picture of a person does not belong in a log.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Image({}x{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_of_the_wrong_size_is_refused() {
        assert!(Image::from_rgb(2, 2, vec![0; 12]).is_ok());
        assert!(Image::from_rgb(2, 2, vec![0; 11]).is_err());
        assert!(Image::from_rgb(0, 2, vec![]).is_err());
    }

    #[test]
    fn pixels_are_addressed_by_column_and_row() {
        let image = Image::from_rgb(2, 2, (0..12).collect()).unwrap();
        assert_eq!(image.pixel(1, 0), [3, 4, 5]);
        assert_eq!(image.pixel(0, 1), [6, 7, 8]);
        assert_eq!(format!("{image:?}"), "Image(2x2)");
    }
}
