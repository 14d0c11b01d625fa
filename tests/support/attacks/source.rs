//! The bona fide picture that an attack is made of, measured in widths of its face.

use facelatch::face::detection::Detection;
use facelatch::face::geometry::Point;
use facelatch::face::image::Image;

use crate::attacks::draw::Draw;
use crate::attacks::light::Light;
use crate::attacks::light::Rgb;
use crate::attacks::view::Sheet;

/// Least width of the shown face in a frame, in pixels: the rule for posted pictures is 150, and
/// a tilted medium and the detector's own spread take some of it.
const FACE_PX_MIN: f32 = 168.0;
/// Largest width of the shown face in a frame, in pixels.
const FACE_PX_MAX: f32 = 345.0;
/// Largest share of a frame that the face may fill; the rule is nine tenths.
const FILL_MAX: f32 = 0.74;
/// Least distance between face and border in pixels; the rule is 15.
const BORDER_PX_MIN: f32 = 28.0;
/// Least width of a face in a source in pixels; below it an enlargement shows blocks, not skin.
pub const SOURCE_FACE_PX_MIN: f32 = 64.0;
/// A larger face is reduced first: no frame shows more than [`FACE_PX_MAX`].
const SOURCE_FACE_PX_MAX: f32 = 640.0;
/// Frames of door cameras: VGA both ways, and a phone's portrait format.
const FRAMES: [[usize; 2]; 3] = [[640, 480], [480, 640], [720, 960]];

/// A picture with its main face.
pub struct Source {
    /// Names the picture: the first digits of its SHA-256.
    pub digest: String,
    light: Light,
    centre: Point,
    face_px: f32,
    /// Height of the face box in widths.
    pub aspect: f32,
    /// The five landmarks from the middle of the face, in widths.
    pub landmarks: [[f32; 2]; 5],
    /// How far the picture reaches from the middle of the face to the left, top, right and bottom,
    /// in widths of the face.
    pub reach: [f32; 4],
}

/// Where a face goes in a frame.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_field_names, reason = "the unit comes last")]
pub struct Framing {
    /// Columns and rows.
    pub frame_px: [usize; 2],
    /// Width of the face.
    pub face_px: f32,
    /// Middle of the face.
    pub anchor_px: [f32; 2],
}

impl Source {
    /// `None` when no frame can be filled with the picture around its face, or the face is small:
    /// then a control could not be made of it.
    pub fn new(image: &Image, face: &Detection, digest: String) -> Option<Self> {
        let bounds = face.bounds;
        if bounds.width < SOURCE_FACE_PX_MIN {
            return None;
        }
        let longest = image.width().max(image.height()) as f32;
        let shrink = (SOURCE_FACE_PX_MAX / bounds.width).min(1.0);
        let reduced = image.resized((longest * shrink).round() as u32);
        let scale = reduced.width() as f32 / image.width() as f32;
        // Pixel centres lie at integers: half a pixel moves with the scale.
        let moved = |p: Point| Point::new((p.x + 0.5) * scale - 0.5, (p.y + 0.5) * scale - 0.5);
        let (centre, face_px) = (moved(bounds.centre()), bounds.width * scale);
        let (width, height) = (reduced.width() as f32, reduced.height() as f32);
        let reach = [centre.x, centre.y, width - 1.0 - centre.x, height - 1.0 - centre.y];
        let source = Self {
            digest,
            light: Light::from_image(&reduced),
            centre,
            face_px,
            aspect: bounds.height / bounds.width,
            landmarks: face
                .landmarks
                .map(moved)
                .map(|p| [(p.x - centre.x) / face_px, (p.y - centre.y) / face_px]),
            reach: reach.map(|px| px / face_px),
        };
        let is_coverable = source.coverable().next().is_some();
        is_coverable.then_some(source)
    }

    /// The picture's light at a place, from the middle of the face in widths of it.
    pub fn at(&self, [x, y]: [f32; 2]) -> Rgb {
        self.light.smooth(self.centre.x + x * self.face_px, self.centre.y + y * self.face_px)
    }

    /// The whole picture.
    pub fn light(&self) -> &Light {
        &self.light
    }

    /// How many times a frame with a face of `face_px` enlarges the picture.
    pub fn enlarged(&self, face_px: f32) -> f32 {
        face_px / self.face_px
    }

    /// A frame that the picture fills up to its edges.
    pub fn covering(&self, draw: &mut Draw) -> Framing {
        let possible: Vec<_> = self.coverable().collect();
        let (frame_px, least) = draw.pick(&possible);
        let most = self.face_px_max(frame_px);
        // Rather wide than tight: what surrounds the face belongs to the picture.
        let face_px = draw.within([least, most.min(least * 1.25)]);
        let [left, top, right, bottom] = self.reach.map(|reach| reach * face_px / COVER_SPARE);
        let (width, height) = (frame_px[0] as f32, frame_px[1] as f32);
        let wanted = self.wanted(draw, frame_px, face_px);
        let x = wanted[0].min(left).max(width - right);
        let y = wanted[1].min(top).max(height - bottom);
        Framing { frame_px, face_px, anchor_px: [x, y] }
    }

    /// A frame in which the face stands on something held, with as much around it as there is.
    pub fn held(&self, draw: &mut Draw) -> Framing {
        let frame_px = draw.pick(&FRAMES);
        let most = self.face_px_max(frame_px).max(FACE_PX_MIN);
        let face_px = draw.scaled([FACE_PX_MIN, most]);
        Framing { frame_px, face_px, anchor_px: self.wanted(draw, frame_px, face_px) }
    }

    /// Frames that the picture can fill, with [`COVER_SPARE`], and the least face for that.
    fn coverable(&self) -> impl Iterator<Item = ([usize; 2], f32)> {
        let [left, top, right, bottom] = self.reach.map(|reach| reach / COVER_SPARE);
        FRAMES.into_iter().filter_map(move |frame_px| {
            let (width, height) = (frame_px[0] as f32, frame_px[1] as f32);
            let least = (width / (left + right)).max(height / (top + bottom));
            let least = least.max(FACE_PX_MIN);
            let face = [least, least * self.aspect];
            // The face may not be pushed to the border to hide the picture's edge.
            let reaches = [[left, right, width, face[0]], [top, bottom, height, face[1]]];
            let free = reaches.into_iter().all(|[near, far, extent, face]| {
                let room = face / 2.0 + BORDER_PX_MIN;
                (extent - far * least).max(room) <= (near * least).min(extent - room)
            });
            (free && least <= self.face_px_max(frame_px)).then_some((frame_px, least))
        })
    }

    fn face_px_max(&self, [width, height]: [usize; 2]) -> f32 {
        (width as f32).min(height as f32 / self.aspect).min(FACE_PX_MAX / FILL_MAX) * FILL_MAX
    }

    /// Near the middle of the frame, and away from its border.
    fn wanted(&self, draw: &mut Draw, frame_px: [usize; 2], face_px: f32) -> [f32; 2] {
        let face = [face_px, face_px * self.aspect];
        let share = [draw.within([0.4, 0.6]), draw.within([0.43, 0.57])];
        [0, 1].map(|axis| {
            let (extent, room) = (frame_px[axis] as f32, face[axis] / 2.0 + BORDER_PX_MIN);
            (extent * share[axis]).clamp(room, (extent - room).max(room))
        })
    }
}

/// How much farther than the frame a picture must reach that is shown tilted.
const COVER_SPARE: f32 = 1.06;

/// What a display of `size_mm` shows of the picture with the face at `face_mm`: the display and
/// the picture on it. Where the picture ends before the display, bars are left.
pub fn fitted(source: &Source, size_mm: [f32; 2], face_mm: f32) -> (Sheet, Sheet) {
    let [left, top, right, bottom] = source.reach.map(|reach| reach * face_mm);
    let [width, height] = size_mm;
    let along = |near: f32, far: f32, extent: f32| {
        if near + far >= extent {
            let start = -(extent / 2.0).min(near).max(extent - far);
            ([start, start + extent], [start, start + extent])
        } else {
            let start = -near - (extent - near - far) / 2.0;
            ([start, start + extent], [-near, far])
        }
    };
    let (columns, shown_columns) = along(left, right, width);
    let (rows, shown_rows) = along(top, bottom, height);
    let sheet =
        |x: [f32; 2], y: [f32; 2]| Sheet { left: x[0], top: y[0], right: x[1], bottom: y[1] };
    (sheet(columns, rows), sheet(shown_columns, shown_rows))
}
