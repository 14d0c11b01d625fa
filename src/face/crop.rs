//! Windows around a face: the attack detector's crop and the thumbnail that people see.

use crate::face::detection::Detection;
use crate::face::geometry::Rect;
use crate::face::image::Image;
use crate::face::planes::Window;

/// Share of the face box that a thumbnail adds on each side: hair and chin belong to a portrait.
pub const THUMBNAIL_MARGIN: f32 = 0.35;
/// Longest side of a thumbnail in pixels; large enough to be enrolled again (150 px of face).
pub const THUMBNAIL_SIDE_PX_MAX: u32 = 320;

/// The window that the attack detector was trained on: the box widened by `scale`, as far as the
/// picture allows, and moved (not padded) into the picture.
///
/// The arithmetic, whole-pixel truncation and inclusive far edge included, is that of Minivision's
/// `generate_patches.py`. `None` for a box without area or with numbers that are not finite.
pub fn attack_window(width: u32, height: u32, bounds: Rect, scale: f32) -> Option<Window> {
    let finite = [bounds.x, bounds.y, bounds.width, bounds.height].iter().all(|v| v.is_finite());
    if !finite || bounds.area() <= 0.0 {
        return None;
    }
    let last_x = width as f32 - 1.0;
    let last_y = height as f32 - 1.0;
    let scale = (last_y / bounds.height).min(last_x / bounds.width).min(scale);
    let centre = bounds.centre();
    let (x, columns) = shifted(centre.x, bounds.width * scale, last_x);
    let (y, rows) = shifted(centre.y, bounds.height * scale, last_y);
    Some(Window { x, y, width: columns, height: rows })
}

/// First pixel and number of pixels of a span of `length` around `centre`, moved into 0..=`last`.
fn shifted(centre: f32, length: f32, last: f32) -> (u32, u32) {
    let (mut near, mut far) = (centre - length / 2.0, centre + length / 2.0);
    if near < 0.0 {
        (near, far) = (0.0, far - near);
    }
    if far > last {
        (near, far) = (near - (far - last), last);
    }
    let near = near.clamp(0.0, last) as u32;
    let far = far.clamp(0.0, last) as u32;
    (near, far.max(near) - near + 1)
}

/// A small portrait of a face for people to look at.
pub fn thumbnail(image: &Image, face: &Detection) -> Image {
    let bounds = face.bounds;
    let (dx, dy) = (bounds.width * THUMBNAIL_MARGIN, bounds.height * THUMBNAIL_MARGIN);
    let portrait = Rect {
        x: bounds.x - dx,
        y: bounds.y - dy,
        width: bounds.width + 2.0 * dx,
        height: bounds.height + 2.0 * dy,
    };
    image.crop(portrait).resized(THUMBNAIL_SIDE_PX_MAX)
}
