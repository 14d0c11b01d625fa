//! Triangles to samples: which point of which surface is seen at each sample of the picture, and
//! which points the light sees.

use crate::people::maths::{Vec3, cross, dot, unit};
use crate::people::mesh::{Material, Mesh, Vertex};

/// Samples along each side of a pixel.
pub const SAMPLES: usize = 2;

/// Where points of the scene lie in the picture: a pinhole whose axis goes through the face.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The face's middle in the picture, pixels.
    pub centre: [f32; 2],
    /// Pixels for a millimetre at the depth of the face's middle.
    pub scale: f32,
    /// From the camera to the face's middle, millimetres.
    pub distance: f32,
}

impl View {
    /// Pixels; the scene's origin is the face's middle.
    pub fn project(&self, [x, y, z]: Vec3) -> [f32; 2] {
        let factor = self.scale * self.distance / (self.distance - z).max(1.0);
        [self.centre[0] + x * factor, self.centre[1] + y * factor]
    }
}

/// A sample that shows something: which mesh, which triangle, and where in it.
#[derive(Clone, Copy)]
struct Hit {
    mesh: u32,
    cell: u32,
    /// Shares of the second and third corner.
    share: [f32; 2],
}

const NOTHING: u32 = u32::MAX;

/// What each sample of a part of the picture shows.
pub struct Seen {
    /// Left, top, width and height in samples.
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
    hits: Vec<Hit>,
}

impl Seen {
    /// Draws the meshes into a picture of `size` pixels.
    pub fn of(meshes: &[Mesh], view: &View, size: [usize; 2]) -> Self {
        let factor = SAMPLES as f32;
        let project = |vertex: &Vertex| {
            let [x, y] = view.project(vertex.at);
            [x * factor, y * factor, vertex.at[2]]
        };
        let places: Vec<Vec<Vec3>> =
            meshes.iter().map(|mesh| mesh.vertices.iter().map(project).collect()).collect();
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for place in places.iter().flatten() {
            for axis in 0..2 {
                low[axis] = low[axis].min(place[axis]);
                high[axis] = high[axis].max(place[axis]);
            }
        }
        // Whole pixels.
        let limit = |value: f32, axis: usize| {
            ((value.max(0.0) / factor) as usize).min(size[axis]) * SAMPLES
        };
        let (left, top) = (limit(low[0], 0), limit(low[1], 1));
        let (right, bottom) = (limit(high[0] + factor, 0), limit(high[1] + factor, 1));
        let (width, height) = (right.saturating_sub(left), bottom.saturating_sub(top));
        let empty = Hit { mesh: NOTHING, cell: 0, share: [0.0; 2] };
        let mut seen = Self { left, top, width, height, hits: vec![empty; width * height] };
        let mut nearest = vec![f32::MIN; width * height];
        for (index, (mesh, places)) in meshes.iter().zip(&places).enumerate() {
            seen.draw(index as u32, mesh, places, &mut nearest);
        }
        seen
    }

    fn draw(&mut self, index: u32, mesh: &Mesh, places: &[Vec3], nearest: &mut [f32]) {
        let (left, top) = (self.left as f32, self.top as f32);
        for cell in 0..2 * (mesh.columns - 1) * (mesh.rows() - 1) {
            let corners = corners(mesh, cell);
            let at = corners.map(|corner| {
                let [x, y, z] = places[corner];
                [x - left, y - top, z]
            });
            let size = [self.width, self.height];
            fill(at, size, |x, y, depth, share| {
                let place = y * size[0] + x;
                if depth <= nearest[place] {
                    return;
                }
                if mesh.is_frayed && is_hole(mesh, corners, share, [x + self.left, y + self.top]) {
                    return;
                }
                nearest[place] = depth;
                self.hits[place] = Hit { mesh: index, cell: cell as u32, share };
            });
        }
    }

    /// The mesh and the point seen at a sample, counted from this part's corner.
    pub fn at(&self, meshes: &[Mesh], x: usize, y: usize) -> Option<(Material, Vertex)> {
        let hit = self.hits[y * self.width + x];
        if hit.mesh == NOTHING {
            return None;
        }
        let mesh = &meshes[hit.mesh as usize];
        let corners = corners(mesh, hit.cell as usize);
        Some((mesh.material, between(mesh, corners, hit.share)))
    }
}

/// The three corners of a triangle; two of them make a cell of the grid.
fn corners(mesh: &Mesh, cell: usize) -> [usize; 3] {
    let (square, half) = (cell / 2, cell % 2);
    let first = square / (mesh.columns - 1) * mesh.columns + square % (mesh.columns - 1);
    let below = first + mesh.columns;
    if half == 0 { [first, first + 1, below] } else { [first + 1, below + 1, below] }
}

fn between(mesh: &Mesh, corners: [usize; 3], [b, c]: [f32; 2]) -> Vertex {
    let [va, vb, vc] = corners.map(|corner| &mesh.vertices[corner]);
    let a = 1.0 - b - c;
    let one = |of: fn(&Vertex) -> f32| a * of(va) + b * of(vb) + c * of(vc);
    let three = |of: fn(&Vertex) -> Vec3| {
        let (va, vb, vc) = (of(va), of(vb), of(vc));
        [0, 1, 2].map(|i| a * va[i] + b * vb[i] + c * vc[i])
    };
    Vertex {
        at: three(|vertex| vertex.at),
        normal: unit(three(|vertex| vertex.normal)),
        face: [one(|vertex| vertex.face[0]), one(|vertex| vertex.face[1])],
        colour: three(|vertex| vertex.colour),
        gloss: one(|vertex| vertex.gloss),
        open: one(|vertex| vertex.open),
        cover: one(|vertex| vertex.cover),
    }
}

/// Whether a sample falls between the hairs, or outside the shape that is cut from a sheet.
fn is_hole(mesh: &Mesh, corners: [usize; 3], [b, c]: [f32; 2], [x, y]: [usize; 2]) -> bool {
    let [va, vb, vc] = corners.map(|corner| mesh.vertices[corner].cover);
    let cover = (1.0 - b - c) * va + b * vb + c * vc;
    if mesh.material != Material::Hair {
        return cover < 0.5;
    }
    // The same order of samples everywhere: no pattern shows, since neighbours differ.
    let hash = (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77);
    let hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
    cover <= ((hash ^ (hash >> 13)) >> 8) as f32 / (1u32 << 24) as f32
}

/// Calls `sample` with column, row, depth and the shares of the second and third corner for every
/// sample whose middle lies in the triangle.
fn fill(at: [Vec3; 3], size: [usize; 2], mut sample: impl FnMut(usize, usize, f32, [f32; 2])) {
    let [a, b, c] = at;
    let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
    if area.abs() < 1e-6 || !area.is_finite() {
        return;
    }
    let span = |axis: usize| {
        let low = a[axis].min(b[axis]).min(c[axis]);
        let high = a[axis].max(b[axis]).max(c[axis]);
        let first = (low - 0.5).ceil().max(0.0) as usize;
        let end = ((high - 0.5).floor() + 1.0).clamp(0.0, size[axis] as f32) as usize;
        first..end
    };
    let columns = span(0);
    for y in span(1) {
        for x in columns.clone() {
            let (px, py) = (x as f32 + 0.5 - a[0], y as f32 + 0.5 - a[1]);
            let second = (px * (c[1] - a[1]) - py * (c[0] - a[0])) / area;
            let third = (py * (b[0] - a[0]) - px * (b[1] - a[1])) / area;
            if second < 0.0 || third < 0.0 || second + third > 1.0 {
                continue;
            }
            let depth = a[2] + second * (b[2] - a[2]) + third * (c[2] - a[2]);
            sample(x, y, depth, [second, third]);
        }
    }
}

/// What the light sees: how near to it each ray is stopped.
pub struct Shadows {
    axes: [Vec3; 3],
    depths: Vec<f32>,
}

/// Side of the map in samples and in millimetres.
const MAP_SIDE: usize = 240;
const MAP_MM: f32 = 420.0;
/// A surface throws no shadow on itself within this depth, millimetres.
const OWN_DEPTH: f32 = 5.0;

impl Shadows {
    pub fn of(meshes: &[Mesh], light: Vec3) -> Self {
        let right = unit(cross([0.0, 1.0, 0.02], light));
        let axes = [right, cross(light, right), light];
        let mut depths = vec![f32::MIN; MAP_SIDE * MAP_SIDE];
        for mesh in meshes.iter().filter(|mesh| mesh.throws_shadow) {
            let places: Vec<Vec3> =
                mesh.vertices.iter().map(|vertex| on_map(&axes, vertex.at)).collect();
            for cell in 0..2 * (mesh.columns - 1) * (mesh.rows() - 1) {
                let corners = corners(mesh, cell);
                if mesh.is_frayed && corners.iter().any(|corner| mesh.vertices[*corner].cover < 0.5)
                {
                    continue;
                }
                fill(corners.map(|corner| places[corner]), [MAP_SIDE; 2], |x, y, depth, _| {
                    let nearest = &mut depths[y * MAP_SIDE + x];
                    *nearest = nearest.max(depth);
                });
            }
        }
        Self { axes, depths }
    }

    /// Share of the light that reaches a point.
    pub fn light_at(&self, point: Vec3) -> f32 {
        let [x, y, depth] = on_map(&self.axes, point);
        let mut lit = 0.0;
        for (dx, dy) in [(-1.7, -0.6), (0.6, -1.7), (1.7, 0.6), (-0.6, 1.7), (0.0, 0.0)] {
            let (column, row) = (x + dx, y + dy);
            let side = MAP_SIDE as f32;
            let outside = !(0.0..side).contains(&column) || !(0.0..side).contains(&row);
            let stopped = if outside {
                f32::MIN
            } else {
                self.depths[row as usize * MAP_SIDE + column as usize]
            };
            // Not a hard edge: lamps and windows are wide.
            lit += 1.0 - ((stopped - depth - OWN_DEPTH) / 6.0).clamp(0.0, 1.0);
        }
        lit / 5.0
    }
}

fn on_map(axes: &[Vec3; 3], point: Vec3) -> Vec3 {
    let per_mm = MAP_SIDE as f32 / MAP_MM;
    let middle = MAP_SIDE as f32 / 2.0;
    [
        dot(axes[0], point) * per_mm + middle,
        dot(axes[1], point) * per_mm + middle,
        dot(axes[2], point),
    ]
}
