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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::face::geometry::Point;
    use crate::face::planes::{PlaneMap, Planes, resize_into};

    const fn rect(x: f32, y: f32, width: f32, height: f32) -> Rect {
        Rect { x, y, width, height }
    }

    #[test]
    fn windows_are_those_of_the_original() {
        // Printed by `tests/golden/record.py`, which holds Minivision's arithmetic.
        for ((width, height), bounds, scale, [x, y, columns, rows]) in [
            ((480, 640), rect(190.0, 111.0, 194.0, 240.0), 2.7, [0, 0, 480, 593]),
            ((480, 640), rect(190.0, 111.0, 194.0, 240.0), 4.0, [0, 0, 480, 593]),
            ((640, 480), rect(10.5, 200.25, 90.5, 120.75), 2.7, [0, 97, 245, 327]),
            ((640, 480), rect(540.0, 5.0, 80.0, 100.0), 2.7, [423, 0, 217, 271]),
            ((200, 200), rect(-20.0, -10.0, 60.0, 60.0), 2.7, [0, 0, 163, 163]),
            ((200, 200), rect(180.0, 190.0, 60.0, 60.0), 2.7, [37, 37, 163, 163]),
            ((100, 100), rect(-50.0, -50.0, 300.0, 300.0), 4.0, [0, 0, 100, 100]),
        ] {
            let expected = Window { x, y, width: columns, height: rows };
            assert_eq!(attack_window(width, height, bounds, scale), Some(expected), "{bounds:?}");
        }
    }

    #[test]
    fn the_crop_is_that_of_the_original() {
        let pixel = |at: u32| {
            let (x, y) = (at % 160, at / 160);
            [x as u8, 2 * y as u8, (x * y / 80) as u8]
        };
        let image = Image::from_rgb(160, 120, (0..160 * 120).flat_map(pixel).collect()).unwrap();
        let window = attack_window(160, 120, rect(60.0, 30.0, 30.0, 36.0), 2.7).unwrap();
        let mut values = vec![0.0; 3 * 80 * 80];
        let mut planes = Planes { width: 80, height: 80, values: &mut values };
        resize_into(&image, window, (80, 80), &PlaneMap::RAW_BGR, &mut planes);
        // Red, green and blue that cv2.resize gives for the original's crop.
        for ((x, y), [red, green, blue]) in [
            ((0, 0), [34.01, 0.22, 0.0]),
            ((40, 40), [75.01, 98.22, 45.12]),
            ((79, 79), [114.99, 193.78, 138.87]),
            ((13, 66), [47.34, 161.92, 47.34]),
        ] {
            for (plane, expected) in [blue, green, red].into_iter().enumerate() {
                let found = values[plane * 6400 + y * 80 + x];
                assert!((found - expected).abs() < 0.05, "{x},{y}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn boxes_that_are_none_have_no_window() {
        for bounds in [
            rect(1.0, 1.0, 0.0, 10.0),
            rect(1.0, 1.0, -5.0, -5.0),
            rect(f32::NAN, 1.0, 5.0, 5.0),
            rect(1.0, 1.0, f32::INFINITY, 5.0),
        ] {
            assert_eq!(attack_window(100, 100, bounds, 2.7), None, "{bounds:?}");
        }
    }

    #[test]
    fn a_thumbnail_shows_the_face_with_some_ground() {
        let image = Image::from_rgb(1000, 800, vec![50; 1000 * 800 * 3]).unwrap();
        let face = |bounds| Detection { bounds, landmarks: [Point::default(); 5], confidence: 0.9 };
        let small = thumbnail(&image, &face(rect(100.0, 100.0, 100.0, 120.0)));
        assert_eq!((small.width(), small.height()), (170, 204));
        let large = thumbnail(&image, &face(rect(200.0, 200.0, 400.0, 400.0)));
        assert_eq!((large.width(), large.height()), (320, 320));
        let outside = thumbnail(&image, &face(rect(5000.0, 5000.0, 10.0, 10.0)));
        assert_eq!((outside.width(), outside.height()), (1, 1));
    }

    proptest! {
        #[test]
        fn a_window_lies_inside_the_picture(
            width in 1u32..3000, height in 1u32..3000,
            x in -5e3f32..5e3, y in -5e3f32..5e3, w in 0.001f32..5e3, h in 0.001f32..5e3,
            scale in 0.5f32..5.0,
        ) {
            let window = attack_window(width, height, rect(x, y, w, h), scale).unwrap();
            prop_assert!(window.width >= 1 && window.height >= 1);
            prop_assert!(window.x + window.width <= width);
            prop_assert!(window.y + window.height <= height);
        }
    }
}
