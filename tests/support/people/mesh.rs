//! Surfaces as grids of points, with normals and the darkness of hollows.

use crate::people::maths::{Rotation, Vec3, add, cross, dot, scale, sub, unit};

/// What a surface is made of, as far as shading differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Material {
    /// The skin of the face: eyes, brows and lips are painted on it.
    Face,
    /// Any other skin.
    Skin,
    Hair,
    Cloth,
    /// Lenses and rims.
    Polished,
}

/// One point of a surface.
#[derive(Clone, Copy, Debug)]
pub struct Vertex {
    pub at: Vec3,
    pub normal: Vec3,
    /// Where on the neutral face it lies, in millimetres as seen from the front.
    pub face: [f32; 2],
    pub colour: Vec3,
    pub gloss: f32,
    /// 1 in the open, less in a hollow.
    pub open: f32,
    /// Share of the surface that is there; hair thins out at its edge.
    pub cover: f32,
}

impl Vertex {
    pub fn new(at: Vec3, colour: Vec3) -> Self {
        Self {
            at,
            normal: [0.0, 0.0, 1.0],
            face: [0.0; 2],
            colour,
            gloss: 0.2,
            open: 1.0,
            cover: 1.0,
        }
    }
}

/// A grid of points; columns run to the right and rows down, seen from outside.
pub struct Mesh {
    pub material: Material,
    pub columns: usize,
    pub vertices: Vec<Vertex>,
    /// Whether `cover` has to be asked for.
    pub is_frayed: bool,
    /// Whether it throws shadows.
    pub throws_shadow: bool,
}

/// Steps on the grid over which hollows are looked for, and how much each counts.
const HOLLOW_STEPS: [(usize, f32); 3] = [(2, 0.5), (5, 0.8), (11, 0.9)];

impl Mesh {
    /// Points of a grid, row by row.
    pub fn grid(
        material: Material,
        (columns, rows): (usize, usize),
        mut point: impl FnMut(f32, f32) -> Vertex,
    ) -> Self {
        let share = |index: usize, count: usize| index as f32 / (count - 1) as f32;
        let mut vertices = Vec::with_capacity(columns * rows);
        for row in 0..rows {
            for column in 0..columns {
                vertices.push(point(share(column, columns), share(row, rows)));
            }
        }
        let mut mesh = Self { material, columns, vertices, is_frayed: false, throws_shadow: true };
        mesh.find_normals();
        mesh
    }

    pub fn rows(&self) -> usize {
        self.vertices.len() / self.columns
    }

    fn at(&self, column: usize, row: usize) -> Vec3 {
        self.vertices[row * self.columns + column].at
    }

    fn find_normals(&mut self) {
        let (columns, rows) = (self.columns, self.rows());
        for row in 0..rows {
            for column in 0..columns {
                let across = sub(
                    self.at((column + 1).min(columns - 1), row),
                    self.at(column.saturating_sub(1), row),
                );
                let down = sub(
                    self.at(column, (row + 1).min(rows - 1)),
                    self.at(column, row.saturating_sub(1)),
                );
                self.vertices[row * columns + column].normal = unit(cross(across, down));
            }
        }
    }

    /// Darkens hollows: where the neighbourhood lies above the point, less of the sky is seen.
    /// `fineness` is 1 for a grid of about a millimetre.
    pub fn find_hollows(&mut self, fineness: f32) {
        let (columns, rows) = (self.columns, self.rows());
        for row in 0..rows {
            for column in 0..columns {
                let here = self.vertices[row * columns + column];
                let mut hidden = 0.0;
                for (step, weight) in HOLLOW_STEPS {
                    let step = ((step as f32 * fineness).round() as usize).max(1);
                    let (left, right) =
                        (column.saturating_sub(step), (column + step).min(columns - 1));
                    let (up, down) = (row.saturating_sub(step), (row + step).min(rows - 1));
                    let around = [(left, row), (right, row), (column, up), (column, down)];
                    let mut rise = 0.0;
                    for (column, row) in around {
                        let away = sub(self.at(column, row), here.at);
                        let length = dot(away, away).sqrt().max(0.3);
                        rise += (dot(away, here.normal) / length).max(-0.15);
                    }
                    hidden += weight * (rise / 4.0).max(0.0);
                }
                self.vertices[row * columns + column].open = (1.0 - 1.1 * hidden).clamp(0.25, 1.0);
            }
        }
    }

    /// Moves the whole surface.
    pub fn place(&mut self, rotation: &Rotation, shift: Vec3) {
        for vertex in &mut self.vertices {
            vertex.at = add(rotation.turn(vertex.at), shift);
            vertex.normal = rotation.turn(vertex.normal);
        }
    }

    /// A round bar from one end to the other, with the radius of each end; the grid is closed.
    pub fn bar(
        material: Material,
        ends: [(Vec3, f32); 2],
        colour: impl Fn(f32, f32) -> Vec3,
    ) -> Self {
        let [(from, thick), (to, thin)] = ends;
        let along = unit(sub(to, from));
        let side = unit(cross(along, [0.31, 0.2, 0.93]));
        let front = cross(side, along);
        let length = dot(sub(to, from), along);
        let (columns, rows) = (25, 30);
        Self::grid(material, (columns, rows), |u, v| {
            // Both ends are half spheres.
            let way = v * (length + thick + thin) - thick;
            let radius = if way < 0.0 {
                (thick * thick - way * way).max(0.0).sqrt()
            } else if way > length {
                (thin * thin - (way - length) * (way - length)).max(0.0).sqrt()
            } else {
                thick + (thin - thick) * way / length
            };
            let (sin, cos) = (u * std::f32::consts::TAU).sin_cos();
            let out = add(scale(side, sin * radius), scale(front, cos * radius));
            Vertex::new(add(add(from, scale(along, way)), out), colour(u, v))
        })
        .facing_out()
    }

    /// Turns the normals outwards where the grid was laid the other way round.
    pub fn facing_out(mut self) -> Self {
        let count = self.vertices.len() as f32;
        let middle = scale(
            self.vertices.iter().fold([0.0; 3], |sum, vertex| add(sum, vertex.at)),
            1.0 / count,
        );
        let sum: f32 =
            self.vertices.iter().map(|vertex| dot(vertex.normal, sub(vertex.at, middle))).sum();
        if sum < 0.0 {
            for vertex in &mut self.vertices {
                vertex.normal = scale(vertex.normal, -1.0);
            }
        }
        self
    }
}
