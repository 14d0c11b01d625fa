//! From the detector's output tensors to faces, and how its input is laid out: `YuNet`'s letterbox
//! and anchor-free decoding on strides 8, 16 and 32.
//!
//! A picture is scaled to fit a square canvas, placed at the top left and padded with 0. Each
//! stride `s` has `(side / s)^2` cells, row by row; a cell's score is the geometric mean of its
//! class and object scores, and box and points are relative to the cell. Cells whose numbers are
//! not finite are no faces.

use thiserror::Error;

use crate::face::detection::Detection;
use crate::face::geometry::{Point, Rect};
use crate::face::image::Image;
use crate::face::planes::{PlaneMap, Planes, Window, resize_into};

/// The feature maps' strides in canvas pixels.
pub const STRIDES: [usize; 3] = [8, 16, 32];
/// Boxes that overlap more than this are the same face (intersection over union).
pub const OVERLAP_MAX: f32 = 0.3;
/// Most cells that are considered, best first. A 640 canvas has 8,400; a picture with more than
/// this many of them above the threshold is noise or an attack on the quadratic suppression.
pub const CANDIDATES_MAX: usize = 2_000;
/// Largest box side in canvas sides; larger answers are nonsense and would overflow later.
const BOX_CANVASES_MAX: f32 = 4.0;

/// Output tensors of one stride, `cells` = (canvas side / stride)².
#[derive(Clone, Copy, Debug)]
pub struct StrideMaps<'a> {
    /// Class score, one for each cell.
    pub class: &'a [f32],
    /// Object score, one for each cell.
    pub object: &'a [f32],
    /// Box: centre offset x, y in cells, logarithm of width and height in cells.
    pub bounds: &'a [f32],
    /// Five points, x and y offset in cells.
    pub points: &'a [f32],
}

/// Output tensors whose size does not fit the canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("stride {stride}: {what} holds {found} values, expected {expected}")]
pub struct MapSizeError {
    /// Of the feature map.
    pub stride: usize,
    /// Which tensor.
    pub what: &'static str,
    /// Values that came.
    pub found: usize,
    /// Values that the canvas demands.
    pub expected: usize,
}

/// How a picture lies on the canvas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Letterbox {
    /// Side of the square canvas in pixels, a multiple of 32.
    pub side: usize,
    /// Canvas pixels per picture pixel.
    pub scale: f32,
}

impl Letterbox {
    /// Fits a picture of this size into a square of `side`.
    pub fn fit(width: u32, height: u32, side: usize) -> Self {
        Self { side, scale: side as f32 / width.max(height) as f32 }
    }

    /// Writes the canvas: blue, green and red planes, 0 to 255, as the detector wants them.
    /// `values` is resized to hold them.
    pub fn draw(self, image: &Image, values: &mut Vec<f32>) {
        values.clear();
        values.resize(3 * self.side * self.side, 0.0);
        let extent =
            |pixels: u32| ((pixels as f32 * self.scale).round() as usize).clamp(1, self.side);
        let size = (extent(image.width()), extent(image.height()));
        let mut planes = Planes { width: self.side, height: self.side, values };
        resize_into(image, Window::whole(image), size, &PlaneMap::RAW_BGR, &mut planes);
    }
}

/// Faces in picture coordinates, best first, overlapping ones suppressed.
///
/// `maps` follow [`STRIDES`]; `confidence_min` is 0 to 1.
pub fn decode(
    letterbox: Letterbox,
    maps: &[StrideMaps<'_>; 3],
    confidence_min: f32,
) -> Result<Vec<Detection>, MapSizeError> {
    let mut faces = Vec::new();
    for (&stride, maps) in STRIDES.iter().zip(maps) {
        let columns = letterbox.side / stride;
        check_sizes(stride, columns * columns, maps)?;
        for cell in 0..columns * columns {
            let confidence = confidence(maps, cell);
            if confidence >= confidence_min {
                let place = Cell { index: cell, columns, stride: stride as f32 };
                faces.extend(face_at(letterbox, maps, place, confidence));
            }
        }
    }
    faces.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    faces.truncate(CANDIDATES_MAX);
    Ok(suppress_overlaps(faces))
}

/// Keeps the first of overlapping faces; `faces` must come best first.
pub fn suppress_overlaps(faces: Vec<Detection>) -> Vec<Detection> {
    let mut kept: Vec<Detection> = Vec::new();
    for face in faces {
        if kept.iter().all(|better| better.bounds.iou(face.bounds) <= OVERLAP_MAX) {
            kept.push(face);
        }
    }
    kept
}

fn check_sizes(stride: usize, cells: usize, maps: &StrideMaps<'_>) -> Result<(), MapSizeError> {
    let tensors = [
        ("cls", maps.class, 1),
        ("obj", maps.object, 1),
        ("bbox", maps.bounds, 4),
        ("kps", maps.points, 10),
    ];
    for (what, values, per_cell) in tensors {
        let (found, expected) = (values.len(), cells * per_cell);
        if found != expected {
            return Err(MapSizeError { stride, what, found, expected });
        }
    }
    Ok(())
}

/// NaN where one of the scores is NaN, which no threshold admits.
fn confidence(maps: &StrideMaps<'_>, cell: usize) -> f32 {
    (maps.class[cell].clamp(0.0, 1.0) * maps.object[cell].clamp(0.0, 1.0)).sqrt()
}

#[derive(Clone, Copy)]
struct Cell {
    index: usize,
    columns: usize,
    stride: f32,
}

fn face_at(
    letterbox: Letterbox,
    maps: &StrideMaps<'_>,
    cell: Cell,
    confidence: f32,
) -> Option<Detection> {
    let column = (cell.index % cell.columns) as f32;
    let row = (cell.index / cell.columns) as f32;
    let unit = cell.stride / letterbox.scale;
    let at = |dx: f32, dy: f32| Point::new((dx + column) * unit, (dy + row) * unit);
    let bounds = &maps.bounds[cell.index * 4..][..4];
    let points = &maps.points[cell.index * 10..][..10];
    let side_max = BOX_CANVASES_MAX * letterbox.side as f32 / letterbox.scale;
    let (width, height) = (bounds[2].exp() * unit, bounds[3].exp() * unit);
    let centre = at(bounds[0], bounds[1]);
    let landmarks: [Point; 5] =
        std::array::from_fn(|point| at(points[2 * point], points[2 * point + 1]));
    let near = |value: f32| value.abs() <= side_max;
    let sane = width > 0.0
        && height > 0.0
        && near(width)
        && near(height)
        && near(centre.x)
        && near(centre.y)
        && landmarks.iter().all(|point| near(point.x) && near(point.y));
    let bounds = Rect { x: centre.x - width / 2.0, y: centre.y - height / 2.0, width, height };
    sane.then_some(Detection { bounds, landmarks, confidence })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Owned tensors of one canvas.
    struct Maps {
        side: usize,
        values: Vec<[Vec<f32>; 4]>,
    }

    impl Maps {
        fn empty(side: usize) -> Self {
            let sized = |stride: usize| {
                let cells = (side / stride).pow(2);
                [1, 1, 4, 10].map(|values| vec![0.0; cells * values])
            };
            Self { side, values: STRIDES.map(sized).to_vec() }
        }

        /// Sets class and object score, box and points of one cell.
        fn set(&mut self, stride: usize, cell: usize, score: f32, bounds: [f32; 4]) {
            let maps = &mut self.values[STRIDES.iter().position(|s| *s == stride).unwrap()];
            maps[0][cell] = score;
            maps[1][cell] = score;
            maps[2][cell * 4..][..4].copy_from_slice(&bounds);
        }

        fn decode(&self, scale: f32) -> Result<Vec<Detection>, MapSizeError> {
            let maps: Vec<_> = self.values.iter().map(view).collect();
            decode(Letterbox { side: self.side, scale }, &maps.try_into().unwrap(), 0.6)
        }
    }

    fn view([class, object, bounds, points]: &[Vec<f32>; 4]) -> StrideMaps<'_> {
        StrideMaps { class, object, bounds, points }
    }

    /// The real network's answer to `tests/golden/cartoon.png`, see `tests/golden/record.py`.
    fn recorded() -> Maps {
        let bytes = include_bytes!("../../tests/golden/yunet_cartoon.f32");
        let mut floats =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let mut maps = Maps::empty(96);
        for tensor in maps.values.iter_mut().flatten() {
            tensor.fill_with(|| floats.next().unwrap());
        }
        assert_eq!(floats.next(), None);
        maps
    }

    #[test]
    fn the_recorded_face_is_where_the_reference_decoder_finds_it() {
        for scale in [1.0, 0.25] {
            let faces = recorded().decode(scale).unwrap();
            assert_eq!(faces.len(), 1);
            let face = faces[0];
            assert!((face.confidence - 0.8899).abs() < 1e-4);
            let bounds = [face.bounds.x, face.bounds.y, face.bounds.width, face.bounds.height];
            let points = face.landmarks.map(|point| [point.x, point.y]);
            let expected_points = [
                [35.020, 43.081],
                [59.892, 40.233],
                [48.665, 56.050],
                [39.871, 66.493],
                [60.994, 63.961],
            ];
            let expected = [20.442, 17.625, 53.886, 68.667].into_iter();
            let expected = expected.chain(expected_points.into_iter().flatten());
            let found = bounds.into_iter().chain(points.into_iter().flatten());
            for (found, expected) in found.zip(expected) {
                assert!((found * scale - expected).abs() < 2e-3, "{found} * {scale}, {expected}");
            }
        }
    }

    #[test]
    fn the_score_is_the_geometric_mean_of_clipped_scores() {
        for (class, object, found) in [
            (1.7, 0.36, Some(0.6)),
            (0.9, 0.39, None),
            (-1.0, -1.0, None),
            (f32::NAN, 1.0, None),
            (f32::INFINITY, 1.0, Some(1.0)),
        ] {
            let mut maps = Maps::empty(32);
            maps.set(32, 0, class, [0.5, 0.5, 0.0, 0.0]);
            maps.values[2][1][0] = object;
            let faces = maps.decode(1.0).unwrap();
            let score = faces.first().map(|face| (face.confidence * 1000.0).round() / 1000.0);
            assert_eq!(score, found, "{class} {object}");
        }
    }

    #[test]
    fn overlapping_faces_are_one_and_the_best_stays() {
        let mut maps = Maps::empty(64);
        // 16x16 px each at (8, 8), (10, 8) and (40, 40): the second overlaps the first by .78.
        maps.set(8, 9, 0.7, [0.0, 0.0, 2f32.ln(), 2f32.ln()]);
        maps.set(8, 10, 0.9, [-0.75, 0.0, 2f32.ln(), 2f32.ln()]);
        maps.set(8, 45, 0.8, [0.0, 0.0, 2f32.ln(), 2f32.ln()]);
        let faces = maps.decode(1.0).unwrap();
        let scores: Vec<f32> = faces.iter().map(|face| face.confidence).collect();
        assert_eq!(scores, [0.9, 0.8]);
        assert_eq!(faces[0].bounds, Rect { x: 2.0, y: 0.0, width: 16.0, height: 16.0 });
    }

    #[test]
    fn numbers_that_mean_nothing_are_no_faces() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, 90.0] {
            let mut maps = Maps::empty(64);
            maps.set(16, 5, 0.9, [0.0, 0.0, value, 0.0]);
            assert_eq!(maps.decode(1.0).unwrap(), [], "width {value}");
            maps.set(16, 5, 0.9, [0.0; 4]);
            maps.values[1][3][5 * 10 + 7] = value;
            assert_eq!(maps.decode(1.0).unwrap(), [], "point {value}");
        }
    }

    #[test]
    fn tensors_of_another_size_are_named() {
        let mut maps = Maps::empty(64);
        maps.values[1][2].pop();
        let error = MapSizeError { stride: 16, what: "bbox", found: 63, expected: 64 };
        assert_eq!(maps.decode(1.0), Err(error));
    }

    #[test]
    fn a_flood_of_candidates_is_cut_to_the_best() {
        let mut maps = Maps::empty(640);
        for cell in 0..6400 {
            // Tiny boxes, so that none overlap; the score rises with the cell.
            let score = 0.7 + cell as f32 / 6400.0 * 0.2;
            maps.set(8, cell, score, [0.5, 0.5, -2.0, -2.0]);
        }
        let faces = maps.decode(1.0).unwrap();
        assert_eq!(faces.len(), CANDIDATES_MAX);
        assert!(faces[CANDIDATES_MAX - 1].confidence > 0.8);
    }

    #[test]
    fn a_picture_lies_at_the_top_left_of_its_canvas() {
        let image = Image::from_rgb(4, 2, [10, 20, 30].repeat(8)).unwrap();
        let letterbox = Letterbox::fit(4, 2, 32);
        assert_eq!(letterbox.scale, 8.0);
        let mut canvas = vec![9.0; 5];
        letterbox.draw(&image, &mut canvas);
        assert_eq!(canvas.len(), 3 * 32 * 32);
        for (plane, value) in [(0, 30.0), (1, 20.0), (2, 10.0)] {
            let plane = &canvas[plane * 1024..][..1024];
            assert!(plane[..16 * 32].iter().all(|v| *v == value));
            assert!(plane[16 * 32..].iter().all(|v| *v == 0.0));
        }
        // One pixel high on the canvas, not none.
        Letterbox::fit(1000, 1, 32)
            .draw(&Image::from_rgb(1000, 1, vec![255; 3000]).unwrap(), &mut canvas);
        assert!(canvas[..32].iter().all(|v| *v == 255.0));
    }

    proptest! {
        #[test]
        fn any_tensors_give_sane_faces_or_none(
            values in prop::collection::vec(prop::num::f32::ANY, 21 * 16),
            scale in 0.001f32..100.0,
        ) {
            let mut maps = Maps::empty(32);
            let mut values = values.into_iter().cycle();
            for tensor in maps.values.iter_mut().flatten() {
                tensor.fill_with(|| values.next().unwrap());
            }
            for face in maps.decode(scale).unwrap() {
                prop_assert!(face.bounds.width > 0.0 && face.bounds.height > 0.0);
                prop_assert!(face.bounds.right().is_finite() && face.bounds.bottom().is_finite());
                prop_assert!((0.6..=1.0).contains(&face.confidence));
                prop_assert!(face.landmarks.iter().all(|p| p.x.is_finite() && p.y.is_finite()));
            }
        }
    }
}
