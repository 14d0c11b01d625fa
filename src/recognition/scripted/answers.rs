//! What the scripted networks answer, in the tensors of the real ones: read off the colours of
//! painted faces.

use crate::face::mesh;
use crate::inference::Outputs;
use crate::inference::Tensor;
use crate::recognition::scripted::ALIGNED_SIDE;
use crate::recognition::scripted::BLINK;
use crate::recognition::scripted::DIMENSION;
use crate::recognition::scripted::EYE_RATIO_ASLEEP;
use crate::recognition::scripted::EYE_RATIO_NARROW;
use crate::recognition::scripted::EYE_RATIO_OPEN;
use crate::recognition::scripted::EYE_RATIO_SQUINTING;
use crate::recognition::scripted::FACE_CANVAS_PX_MIN;
use crate::recognition::scripted::FACE_RED_MIN;
use crate::recognition::scripted::Kind;
use crate::recognition::scripted::LANDMARKS;
use crate::recognition::scripted::NARROW_EYED_MIN;
use crate::recognition::scripted::NOSE_TURNED;
use crate::recognition::scripted::REFINED_BY;
use crate::recognition::scripted::embedding_of;

/// A canvas as the detectors get it: blue, green and red planes.
struct Canvas<'a> {
    width: usize,
    height: usize,
    values: &'a [f32],
}

impl<'a> Canvas<'a> {
    fn of(input: &'a Tensor) -> Self {
        Self { width: input.shape[3], height: input.shape[2], values: &input.values }
    }

    fn red(&self, x: usize, y: usize) -> f32 {
        self.values[2 * self.width * self.height + y * self.width + x]
    }

    fn is_face(&self, x: usize, y: usize) -> bool {
        self.red(x, y) >= FACE_RED_MIN
    }

    /// Bounds (left, top, right, bottom; the latter two exclusive) of every connected region of
    /// face colour, with its kind.
    fn faces(&self) -> Vec<([usize; 4], Kind)> {
        let mut seen = vec![false; self.width * self.height];
        let mut faces = Vec::new();
        for y in 0..self.height {
            for x in 0..self.width {
                if !seen[y * self.width + x] && self.is_face(x, y) {
                    let bounds = self.flood(&mut seen, x, y);
                    let [left, top, right, bottom] = bounds;
                    let kind = Kind::of_red(self.red(left.midpoint(right), top.midpoint(bottom)));
                    let large = (right - left).min(bottom - top) >= FACE_CANVAS_PX_MIN;
                    faces.extend(kind.filter(|_| large).map(|kind| (bounds, kind)));
                }
            }
        }
        faces
    }

    fn flood(&self, seen: &mut [bool], x: usize, y: usize) -> [usize; 4] {
        let mut bounds = [x, y, x + 1, y + 1];
        let mut pending = vec![(x, y)];
        while let Some((x, y)) = pending.pop() {
            if x >= self.width
                || y >= self.height
                || seen[y * self.width + x]
                || !self.is_face(x, y)
            {
                continue;
            }
            seen[y * self.width + x] = true;
            let [left, top, right, bottom] = bounds;
            bounds = [left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)];
            pending.extend([
                (x + 1, y),
                (x, y + 1),
                (x.wrapping_sub(1), y),
                (x, y.wrapping_sub(1)),
            ]);
        }
        bounds
    }
}

/// Answers the detector's twelve tensors, every face in its cell of stride 8.
pub(super) fn detect(input: &Tensor) -> Outputs {
    let canvas = Canvas::of(input);
    let mut outputs = Vec::new();
    for stride in [8, 16, 32] {
        let cells = (canvas.width / stride) * (canvas.height / stride);
        for (what, values) in [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)] {
            let tensor =
                Tensor { shape: vec![1, cells, values], values: vec![0.0; cells * values] };
            outputs.push((format!("{what}_{stride}"), tensor));
        }
    }
    for ([left, top, right, bottom], kind) in canvas.faces() {
        let [left, top, right, bottom] = [left, top, right, bottom].map(|edge| edge as f32 / 8.0);
        let (width, height) = (right - left, bottom - top);
        let (x, y) = (left + width / 2.0, top + height / 2.0);
        let cell = y as usize * (canvas.width / 8) + x as usize;
        let mut landmarks = LANDMARKS;
        if kind == Kind::Turned {
            landmarks[2] = NOSE_TURNED;
        }
        let points = landmarks
            .iter()
            .flat_map(|[dx, dy]| [left + dx * width - x.floor(), top + dy * height - y.floor()]);
        let bounds = [x.fract(), y.fract(), width.ln(), height.ln()];
        outputs[0].1.values[cell] = 1.0;
        outputs[1].1.values[cell] = 1.0;
        outputs[2].1.values[cell * 4..][..4].copy_from_slice(&bounds);
        outputs[3].1.values[cell * 10..][..10].copy_from_slice(&points.collect::<Vec<f32>>());
    }
    Outputs(outputs)
}

/// The 0..255 value of a plane in the middle of the aligned face.
fn middle(input: &Tensor, plane: usize) -> f32 {
    let middle = (ALIGNED_SIDE / 2) * ALIGNED_SIDE + ALIGNED_SIDE / 2;
    input.values[plane * ALIGNED_SIDE * ALIGNED_SIDE + middle] * 127.5 + 127.5
}

/// Answers the state of the face by its kind.
pub(super) fn state(input: &Tensor) -> Outputs {
    let (mut closed, mut covered, mut yaw) = (-6.0, -6.0, 0.0);
    match Kind::of_red(middle(input, 0)) {
        Some(Kind::Asleep | Kind::Squinting) => closed = 6.0,
        Some(Kind::Masked) => covered = 6.0,
        Some(Kind::Turned) => yaw = 1.0,
        Some(Kind::Live | Kind::Attack) | None => {}
    }
    let values = vec![closed, closed, -6.0, covered, yaw, 0.0];
    Outputs(vec![("state".into(), Tensor { shape: vec![1, 6], values })])
}

/// Answers the mesh of a face that looks straight ahead, its eyes by person and kind.
pub(super) fn points(input: &Tensor) -> Outputs {
    let middle = (mesh::SIDE_PX / 2) * mesh::SIDE_PX + mesh::SIDE_PX / 2;
    let [red, green, blue] = [0, 1, 2].map(|channel| input.values[middle * 3 + channel] * 255.0);
    let ratio = match Kind::of_red(red) {
        Some(Kind::Asleep) => EYE_RATIO_ASLEEP,
        Some(Kind::Squinting) => EYE_RATIO_SQUINTING,
        _ if person_of(green, blue) >= NARROW_EYED_MIN => EYE_RATIO_NARROW,
        _ => EYE_RATIO_OPEN,
    };
    let values = mesh::frontal_values(ratio);
    let points = Tensor { shape: vec![1, 1, 1, values.len()], values };
    let presence = Tensor { shape: vec![1, 1, 1, 1], values: vec![6.0] };
    Outputs(vec![("Identity".into(), points), ("Identity_1".into(), presence)])
}

/// Answers that every eye blinks.
pub(super) fn expressions() -> Outputs {
    let values = vec![BLINK; 52];
    Outputs(vec![("StatefulPartitionedCall:0".into(), Tensor { shape: vec![52], values })])
}

/// Answers that every point lies [`REFINED_BY`] from where the detector saw it, in a face; that it
/// sees none where there is no face colour in the middle.
pub(super) fn offsets(input: &Tensor) -> Outputs {
    let side = input.shape[3];
    let red = input.values[(side / 2) * side + side / 2] * 127.5 + 127.5;
    let offset = if red >= FACE_RED_MIN { REFINED_BY } else { [f32::NAN; 2] };
    let values: Vec<f32> = offset.repeat(LANDMARKS.len());
    Outputs(vec![("offsets".into(), Tensor { shape: vec![1, values.len()], values })])
}

/// The person that the 0..255 values of green and blue mean; 16 is the distance between two codes.
fn person_of(green: f32, blue: f32) -> u8 {
    let code = |channel: f32| (channel / 16.0) as u8;
    code(green).min(15) + code(blue).min(15) * 16
}

/// Answers the template of the person in the middle of the aligned face.
pub(super) fn embed(input: &Tensor) -> Outputs {
    let person = person_of(middle(input, 1), middle(input, 2));
    let embedding = Tensor { shape: vec![1, DIMENSION], values: embedding_of(person) };
    Outputs(vec![("embedding".into(), embedding)])
}

/// Answers logits by the kind of the solid face colour that is nearest to the middle.
pub(super) fn judge(input: &Tensor) -> Outputs {
    let canvas = Canvas::of(input);
    let solid = |x: usize, y: usize| {
        let red = canvas.red(x, y);
        let like = |x: usize, y: usize| (canvas.red(x, y) - red).abs() < 4.0;
        canvas.is_face(x, y) && like(x - 1, y) && like(x + 1, y) && like(x, y - 1) && like(x, y + 1)
    };
    let places = (1..canvas.height - 1).flat_map(|y| (1..canvas.width - 1).map(move |x| (x, y)));
    let nearest = places.filter(|&(x, y)| solid(x, y)).min_by_key(|&(x, y)| {
        x.abs_diff(canvas.width / 2).pow(2) + y.abs_diff(canvas.height / 2).pow(2)
    });
    let live = match nearest.and_then(|(x, y)| Kind::of_red(canvas.red(x, y))) {
        Some(Kind::Attack) | None => [6.0, 0.0, 0.0],
        Some(_) => [0.0, 6.0, 0.0],
    };
    Outputs(vec![("logits".into(), Tensor { shape: vec![1, 3], values: live.to_vec() })])
}
