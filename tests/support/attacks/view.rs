//! Where things stand: a flat or bent medium in millimetres, seen by a pinhole camera.
//!
//! The medium's plane has its origin in the middle of the shown face, x to the right, y downwards.

use serde::Serialize;

use crate::attacks::draw::Draw;
use crate::attacks::draw::length;

/// How the medium is held in front of the camera.
#[derive(Clone, Debug, Serialize)]
pub struct Placement {
    /// Columns and rows of the frame.
    pub frame_px: [usize; 2],
    /// Width of the shown face in the frame, were it seen straight on.
    pub face_px: f32,
    /// Where the middle of the face lies in the frame.
    pub anchor_px: [f32; 2],
    /// Width of the shown face on the medium.
    pub face_mm: f32,
    /// Turned in the plane of the picture.
    pub roll_deg: f32,
    /// Turned about the vertical.
    pub yaw_deg: f32,
    /// Turned about the horizontal.
    pub pitch_deg: f32,
    /// From lens to medium.
    pub distance_mm: f32,
    /// Radius of the bend about a line through the face; 0 is flat.
    pub bend_radius_mm: f32,
    /// Direction of that line; 0 is upright.
    pub bend_axis_deg: f32,
}

/// The way back from a place in the frame to the medium.
pub struct View {
    inverse: [[f32; 3]; 3],
    /// Millimetres that a pixel at the face covers.
    pub mm_per_px: f32,
    /// Across the bend, and 1/radius.
    bend: ([f32; 2], f32),
}

impl View {
    /// The view of a placement.
    pub fn new(placement: &Placement) -> Self {
        let Placement { frame_px: [width, height], anchor_px, .. } = *placement;
        let px_per_mm = placement.face_px / placement.face_mm;
        let distance = placement.distance_mm;
        let focal = px_per_mm * distance;
        let (cx, cy) = (width as f32 / 2.0, height as f32 / 2.0);
        let shift = [(anchor_px[0] - cx) / px_per_mm, (anchor_px[1] - cy) / px_per_mm, distance];
        let [right, down] = axes(placement);
        // Columns: where a step to the right, a step down, and the origin appear (homogeneous).
        let seen = |[x, y, z]: [f32; 3]| [focal * x + cx * z, focal * y + cy * z, z];
        let [a, b, c] = [right, down, shift].map(seen);
        let matrix = [[a[0], b[0], c[0]], [a[1], b[1], c[1]], [a[2], b[2], c[2]]];
        let axis = placement.bend_axis_deg.to_radians();
        let curvature =
            if placement.bend_radius_mm > 0.0 { 1.0 / placement.bend_radius_mm } else { 0.0 };
        Self {
            inverse: inverted(&matrix),
            mm_per_px: 1.0 / px_per_mm,
            bend: ([axis.cos(), axis.sin()], curvature),
        }
    }

    /// The place on the medium, in millimetres, that a place in the frame shows.
    pub fn mm(&self, x: f32, y: f32) -> [f32; 2] {
        let [u, v, depth] = self.inverse.map(|row| row[0] * x + row[1] * y + row[2]);
        let (u, v) = (u / depth, v / depth);
        let ([across, along], curvature) = self.bend;
        // Seen from afar, a cylinder shows sin(angle) of its arc; the series of the arc sine.
        if curvature == 0.0 {
            return [u, v];
        }
        let lean = ((u * across + v * along) * curvature).clamp(-0.95, 0.95);
        let longer = lean * lean * (1.0 / 6.0 + lean * lean * 0.075);
        let extra = (u * across + v * along) * longer;
        [u + extra * across, v + extra * along]
    }

    /// The slope of the bent medium at a place, as the sine of its angle; 0 where it is flat.
    pub fn slope(&self, [u, v]: [f32; 2]) -> f32 {
        let ([across, along], curvature) = self.bend;
        let angle = ((u * across + v * along) * curvature).clamp(-1.4, 1.4);
        angle * (1.0 - angle * angle / 6.0)
    }
}

/// Where the medium's right and down point in the camera's space (x right, y down, z away).
fn axes(placement: &Placement) -> [[f32; 3]; 2] {
    let (roll_sin, roll_cos) = placement.roll_deg.to_radians().sin_cos();
    let (yaw_sin, yaw_cos) = placement.yaw_deg.to_radians().sin_cos();
    let (pitch_sin, pitch_cos) = placement.pitch_deg.to_radians().sin_cos();
    let turned = |[x, y]: [f32; 2]| {
        let (x, y) = (roll_cos * x - roll_sin * y, roll_sin * x + roll_cos * y);
        let (y, z) = (pitch_cos * y, pitch_sin * y);
        [yaw_cos * x + yaw_sin * z, y, yaw_cos * z - yaw_sin * x]
    };
    [turned([1.0, 0.0]), turned([0.0, 1.0])]
}

fn inverted(m: &[[f32; 3]; 3]) -> [[f32; 3]; 3] {
    let m = m.map(|row| row.map(f64::from));
    let minor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f64 = (0..3).map(|c| m[0][c] * minor(0, c)).sum();
    [0, 1, 2].map(|row| [0, 1, 2].map(|column| (minor(column, row) / determinant) as f32))
}

/// A rectangle on the medium in millimetres.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sheet {
    /// Left edge.
    pub left: f32,
    /// Top edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Bottom edge.
    pub bottom: f32,
}

impl Sheet {
    /// Wider on every side.
    pub fn grown(self, by: f32) -> Self {
        let Self { left, top, right, bottom } = self;
        Self { left: left - by, top: top - by, right: right + by, bottom: bottom + by }
    }

    /// Distance to the edge in millimetres, negative inside, with corners rounded at a radius.
    pub fn distance(self, [x, y]: [f32; 2], corner: f32) -> f32 {
        let half = [(self.right - self.left) / 2.0, (self.bottom - self.top) / 2.0];
        let centre = [self.left + half[0], self.top + half[1]];
        let dx = (x - centre[0]).abs() - half[0] + corner;
        let dy = (y - centre[1]).abs() - half[1] + corner;
        let outer = if dx > 0.0 && dy > 0.0 { length(dx, dy) } else { dx.max(dy) };
        outer - corner
    }

    /// Columns and rows.
    pub fn size(self) -> [f32; 2] {
        [self.right - self.left, self.bottom - self.top]
    }
}

/// A thumb or finger over the edge of what is held.
#[derive(Clone, Debug, Serialize)]
pub struct Finger {
    root: [f32; 2],
    tip: [f32; 2],
    radius_mm: f32,
    skin: [f32; 3],
}

impl Finger {
    /// Reaches over the left, right or lower edge of a sheet.
    ///
    /// It stays off the face, which would be hidden else: a face of `face_mm` around the origin.
    pub fn over(draw: &mut Draw, sheet: Sheet, face_mm: f32) -> Self {
        let radius_mm = draw.within([6.5, 9.5]);
        let reach = draw.within([3.0, 18.0]);
        let side = draw.pick(&[0, 1, 2]);
        let along = draw.within([0.15, 0.85]);
        let lean = draw.within([-12.0, 12.0]);
        let [width, height] = sheet.size();
        let (edge, inward) = match side {
            0 => ([sheet.left, sheet.top + height * along], [1.0, 0.0]),
            1 => ([sheet.right, sheet.top + height * along], [-1.0, 0.0]),
            _ => ([sheet.left + width * along, sheet.bottom], [0.0, -1.0]),
        };
        let at = |far: f32, lean: f32| {
            [
                edge[0] + inward[0] * far + inward[1] * lean,
                edge[1] + inward[1] * far + inward[0] * lean,
            ]
        };
        // Skin reflects 10 to 60 % of red light, less of green, least of blue.
        let red = draw.scaled([0.12, 0.6]);
        let skin = [red, red * draw.within([0.5, 0.68]), red * draw.within([0.32, 0.52])];
        let free = edge[0].abs().max(edge[1].abs()) - 0.62 * face_mm - radius_mm;
        Self { root: at(-70.0, lean * 3.0), tip: at(reach.min(free), 0.0), radius_mm, skin }
    }

    /// The skin's share of reflected light at a place, when the finger is there.
    pub fn at(&self, [x, y]: [f32; 2]) -> Option<[f32; 3]> {
        let axis = [self.tip[0] - self.root[0], self.tip[1] - self.root[1]];
        let from = [x - self.root[0], y - self.root[1]];
        let square = axis[0] * axis[0] + axis[1] * axis[1];
        let t = ((from[0] * axis[0] + from[1] * axis[1]) / square).clamp(0.0, 1.0);
        let off = length(from[0] - axis[0] * t, from[1] - axis[1] * t) / self.radius_mm;
        // A round thing is brightest where it faces the viewer.
        (off < 1.0).then(|| self.skin.map(|value| value * (0.35 + 0.65 * (1.0 - off * off).sqrt())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement() -> Placement {
        Placement {
            frame_px: [640, 480],
            face_px: 200.0,
            anchor_px: [300.0, 220.0],
            face_mm: 100.0,
            roll_deg: 0.0,
            yaw_deg: 0.0,
            pitch_deg: 0.0,
            distance_mm: 300.0,
            bend_radius_mm: 0.0,
            bend_axis_deg: 0.0,
        }
    }

    fn assert_near(found: [f32; 2], expected: [f32; 2]) {
        let off = length(found[0] - expected[0], found[1] - expected[1]);
        assert!(off < 0.01, "{found:?}, expected {expected:?}");
    }

    #[test]
    fn the_face_lies_at_the_anchor_however_it_is_turned() {
        let straight = View::new(&placement());
        assert_near(straight.mm(400.0, 270.0), [50.0, 25.0]);
        let bent = Placement {
            roll_deg: 8.0,
            yaw_deg: 12.0,
            pitch_deg: -9.0,
            bend_radius_mm: 120.0,
            ..placement()
        };
        assert_near(View::new(&bent).mm(300.0, 220.0), [0.0, 0.0]);
    }

    #[test]
    fn what_leans_away_looks_narrower() {
        let turned = View::new(&Placement { yaw_deg: 20.0, ..placement() });
        let [left, _] = turned.mm(200.0, 220.0);
        let [right, _] = turned.mm(400.0, 220.0);
        assert!(right - left > 100.0 / 20f32.to_radians().cos(), "{left} to {right}");
        assert!((right + left).abs() > 5.0, "the far side shows more: {left} to {right}");
        let bent = View::new(&Placement { bend_radius_mm: 80.0, ..placement() });
        assert!(bent.mm(400.0, 220.0)[0] > 53.0);
        assert!(bent.slope([40.0, 0.0]) > 0.4 && bent.slope([-40.0, 0.0]) < -0.4);
    }

    #[test]
    fn distances_to_a_sheet_are_negative_inside() {
        let sheet = Sheet { left: -10.0, top: -20.0, right: 10.0, bottom: 20.0 };
        assert_eq!(sheet.distance([0.0, 0.0], 0.0), -10.0);
        assert_eq!(sheet.distance([13.0, 0.0], 0.0), 3.0);
        assert_eq!(sheet.distance([13.0, 24.0], 0.0), 5.0);
        assert!(sheet.distance([10.0, 20.0], 4.0) > 1.0, "a corner is rounded");
    }
}
