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
