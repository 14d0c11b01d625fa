//! Long straight edges in a coarse map of what surrounds a face.
//!
//! The map has the same number of cells per face width at any distance, so that one set of limits
//! serves all faces, noise is averaged and texture blurred. An edge is a step of brightness across
//! a line that is nearly parallel to an axis; each line counts steps of one direction only, which
//! keeps foliage and folds, whose steps alternate, from adding up to a line.
//!
//! Units are cells. Lines are described for steps along x ("upright" lines); lines across are
//! found on the transposed map.

use crate::face::cues::Span;
use crate::face::image::Image;

/// Cells per face width: at this size the border of a phone is still a cell or two wide.
pub const CELLS_PER_FACE: f32 = 40.0;
/// Least difference of brightness across two cells, in grey levels: above the noise that remains
/// and the steps of compression.
const STEP_LEAST: f32 = 8.0;
/// An edge counts for the axis that its step follows by at least this factor over the other: lines
/// up to 40 degrees from the axis still do.
const ACROSS_MAX: f32 = 1.2;
/// Cells this dark that reach to the map's border are bars around the picture, not its content.
const BAR_LUMA_MAX: f32 = 10.0;
/// Cells next to such a bar whose brightness it still mixes with.
const BAR_HALO: usize = 2;
/// Lines lean at most this much: 0.27 cells to the side per cell, 15 degrees.
const LEAN_STEPS: i32 = 9;
/// Between two leans that are tried, in cells per cell: less than a cell and a half over the
/// height of a face, which is the width that edges are drawn with.
const LEAN_STEP: f32 = 0.03;
/// Lines closer than this (cells) that lean alike are one line.
const SAME_LINE: f32 = 2.5;
/// Leans closer than this are alike.
const SAME_LEAN: f32 = 0.1;
/// Sides of one rectangle differ in lean by at most this, 7 degrees, when it is held to a camera.
const PERSPECTIVE: f32 = 0.13;
/// Share of the rows of a zone that the map must show.
const SHOWN_MIN: f32 = 0.8;
/// Lines that are kept of one side: screen, bezel, case, hand and background fit.
const LINES_MAX: usize = 10;
/// Samples of a cell along each axis.
const SAMPLES: f32 = 3.0;

/// Brightness around a face; not a number where there is no picture.
pub struct Map {
    columns: usize,
    rows: usize,
    luma: Vec<f32>,
}

impl Map {
    /// The map of the part `around` of a picture at `cell_px` picture pixels to a cell. `None`
    /// when fewer than five cells along an axis show the picture.
    pub fn draw(image: &Image, around: (Span, Span), cell_px: f32) -> Option<Self> {
        let [columns, rows] = [around.0, around.1].map(|s| (s.length as f32 / cell_px) as usize);
        if columns < 5 || rows < 5 {
            return None;
        }
        let places = |span: Span, cells: usize| -> Vec<usize> {
            let per_cell = cell_px.min(SAMPLES).ceil() as usize;
            let place = |at: usize| {
                let share = (at as f32 + 0.5) / per_cell as f32;
                span.start + ((share * cell_px) as usize).min(span.length - 1)
            };
            (0..cells * per_cell).map(place).collect()
        };
        let (across, down) = (places(around.0, columns), places(around.1, rows));
        let (per_column, per_row) = (across.len() / columns, down.len() / rows);
        let stride = image.width() as usize * 3;
        let mut luma = vec![0.0; columns * rows];
        for (row, ys) in luma.chunks_exact_mut(columns).zip(down.chunks_exact(per_row)) {
            for y in ys {
                let line = &image.pixels()[y * stride..][..stride];
                for (cell, xs) in row.iter_mut().zip(across.chunks_exact(per_column)) {
                    for x in xs {
                        let [red, green, blue] =
                            [line[x * 3], line[x * 3 + 1], line[x * 3 + 2]].map(u32::from);
                        *cell += (red + 2 * green + blue) as f32;
                    }
                }
            }
        }
        let share = 1.0 / (4 * per_column * per_row) as f32;
        for value in &mut luma {
            *value *= share;
        }
        let mut map = Self { columns, rows, luma };
        map.forget_bars();
        Some(map)
    }

    /// Black bars around a picture, straight or tilted, would be the frame that is looked for.
    fn forget_bars(&mut self) {
        let (columns, rows) = (self.columns, self.rows);
        let mut unknown = vec![false; columns * rows];
        let mut mark = |cells: &mut dyn Iterator<Item = usize>| {
            let cells: Vec<usize> = cells.collect();
            let dark = cells.iter().take_while(|at| self.luma[**at] <= BAR_LUMA_MAX).count();
            if dark > 0 {
                cells.iter().take(dark + BAR_HALO).for_each(|at| unknown[*at] = true);
            }
        };
        for y in 0..rows {
            let row = y * columns..(y + 1) * columns;
            mark(&mut row.clone());
            mark(&mut row.rev());
        }
        for x in 0..columns {
            mark(&mut (0..rows).map(|y| y * columns + x));
            mark(&mut (0..rows).rev().map(|y| y * columns + x));
        }
        for (value, unknown) in self.luma.iter_mut().zip(unknown) {
            if unknown {
                *value = f32::NAN;
            }
        }
    }

    /// The map with x and y exchanged.
    fn transposed(&self) -> Self {
        let luma = (0..self.columns * self.rows)
            .map(|at| self.luma[at % self.rows * self.columns + at / self.rows])
            .collect();
        Self { columns: self.rows, rows: self.columns, luma }
    }
}

/// Direction of a step of brightness with growing x.
const RISING: u8 = 1;
const FALLING: u8 = 2;
/// Shifts a direction to the mark of the middle of its edge.
const MIDDLE: u8 = 2;
/// Share of a zone by which the edge is followed past it at each end to refine a line.
const REFINED_MARGIN: f32 = 0.2;

/// Where brightness steps along x, each step drawn three cells wide.
pub struct Edges {
    columns: usize,
    rows: usize,
    marks: Vec<u8>,
}

/// A straight line: at row `pivot` it passes through x = `at`, and `lean` cells farther right with
/// each row.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    at: f32,
    pivot: f32,
    lean: f32,
    step: u8,
    /// Share of the rows it was looked for in that have its edge, 0 to 1.
    pub share: f32,
}

impl Line {
    /// Where the line is at row `y`.
    pub fn x(&self, y: f32) -> f32 {
        self.at + self.lean * (y - self.pivot)
    }

    /// Whether two lines of one direction are parallel but for perspective.
    pub fn is_along(&self, other: &Line) -> bool {
        (self.lean - other.lean).abs() <= PERSPECTIVE
    }

    /// Whether an upright line and one across are square to each other but for perspective.
    pub fn is_square_to(&self, across: &Line) -> bool {
        (self.lean + across.lean).abs() <= PERSPECTIVE
    }

    /// Where an upright line meets one across.
    pub fn meets(&self, across: &Line) -> (f32, f32) {
        // Both lean by little, so each round takes a factor of ten off the error.
        let mut y = across.at;
        let mut x = self.x(y);
        for _ in 0..3 {
            y = across.x(x);
            x = self.x(y);
        }
        (x, y)
    }
}

impl Edges {
    /// Steps along x, and steps along y as those of the transposed map.
    pub fn both(map: &Map) -> [Self; 2] {
        [Self::of(map), Self::of(&map.transposed())]
    }

    fn of(map: &Map) -> Self {
        let (columns, rows) = (map.columns, map.rows);
        let mut marks = vec![0; columns * rows];
        let step = |at: usize| map.luma[at + 1] - map.luma[at - 1];
        for y in 1..rows - 1 {
            for at in y * columns + 2..(y + 1) * columns - 2 {
                let here = step(at);
                let across = (map.luma[at + columns] - map.luma[at - columns]).abs();
                // What is not a number, next to a bar, is no edge.
                let strong = here.abs() >= STEP_LEAST && here.abs() >= ACROSS_MAX * across;
                if !strong {
                    continue;
                }
                let sign = here.signum();
                if here.abs() < sign * step(at - 1) || here.abs() < sign * step(at + 1) {
                    continue;
                }
                let mark = if here > 0.0 { RISING } else { FALLING };
                for cell in &mut marks[at - 1..=at + 1] {
                    *cell |= mark;
                }
                marks[at] |= mark << MIDDLE;
            }
        }
        Self { columns, rows, marks }
    }

    /// Share of the rows `from..to` in which the line has its edge, and how many rows of it the
    /// map shows.
    pub fn coverage(&self, line: &Line, from: f32, to: f32) -> (f32, usize) {
        let (mut hits, mut seen) = (0, 0);
        for y in self.rows_between(from, to) {
            let x = line.x(y as f32).round();
            if x >= 2.0 && x < (self.columns - 2) as f32 {
                seen += 1;
                hits += usize::from(self.marks[y * self.columns + x as usize] & line.step != 0);
            }
        }
        (if seen > 0 { hits as f32 / seen as f32 } else { 0.0 }, seen)
    }

    /// Lines that cross row `pivot` between `near` and `far` and have their edge in at least
    /// `share_min` of the rows `from..to`, best first.
    pub fn lines(&self, zone: &Zone, share_min: f32) -> Vec<Line> {
        let first = zone.near.max(3.0) as usize;
        let end = (zone.far.max(0.0) as usize).min(self.columns - 3);
        let rows = self.rows_between(zone.from, zone.to);
        let mut found = Vec::new();
        if rows.is_empty() || (rows.len() as f32) < SHOWN_MIN * (zone.to - zone.from) {
            return found;
        }
        for lean in (-LEAN_STEPS..=LEAN_STEPS).map(|step| step as f32 * LEAN_STEP) {
            for at in first..end {
                let hits = self.hits(at as f32, lean, zone.pivot, rows.clone());
                for (step, hits) in [(RISING, hits[0]), (FALLING, hits[1])] {
                    let share = hits as f32 / rows.len() as f32;
                    if share >= share_min {
                        found.push(Line { at: at as f32, pivot: zone.pivot, lean, step, share });
                    }
                }
            }
        }
        let mut lines = distinct(found);
        for line in &mut lines {
            self.refine(line, zone);
        }
        lines
    }

    /// Moves a line onto the middle of its edge by least squares: a lean that is off by half a
    /// step would leave the edge between face and corner.
    fn refine(&self, line: &mut Line, zone: &Zone) {
        let margin = REFINED_MARGIN * (zone.to - zone.from);
        let (mut n, mut sy, mut sx, mut syy, mut sxy) = (0.0f32, 0.0, 0.0, 0.0, 0.0);
        for row in self.rows_between(zone.from - margin, zone.to + margin) {
            let y = row as f32 - line.pivot;
            let near = line.x(row as f32).round();
            let middle = [0.0, -1.0, 1.0, -2.0, 2.0].map(|dx| near + dx).into_iter().find(|x| {
                let inside = *x >= 0.0 && *x < self.columns as f32;
                inside && self.marks[row * self.columns + *x as usize] & (line.step << MIDDLE) != 0
            });
            if let Some(x) = middle {
                (n, sy, sx, syy, sxy) = (n + 1.0, sy + y, sx + x, syy + y * y, sxy + x * y);
            }
        }
        let spread = n * syy - sy * sy;
        if spread > 0.0 {
            line.lean = (n * sxy - sx * sy) / spread;
            line.at = (sx - line.lean * sy) / n;
        }
    }

    fn hits(&self, at: f32, lean: f32, pivot: f32, rows: std::ops::Range<usize>) -> [u32; 2] {
        let last = (self.columns - 1) as f32;
        let mut hits = [0; 2];
        for y in rows {
            let x = (at + lean * (y as f32 - pivot)).clamp(0.0, last);
            let mark = self.marks[y * self.columns + (x + 0.5) as usize];
            hits[0] += u32::from(mark & RISING);
            hits[1] += u32::from(mark & FALLING != 0);
        }
        hits
    }

    fn rows_between(&self, from: f32, to: f32) -> std::ops::Range<usize> {
        let (from, to) = (from.min(to), from.max(to));
        let end = (to.max(0.0) as usize).min(self.rows - 1);
        (from.max(1.0) as usize).min(end)..end
    }
}

/// Where lines are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Zone {
    /// Least x at the pivot.
    pub near: f32,
    /// Greatest x at the pivot.
    pub far: f32,
    /// The row that `near` and `far` are of.
    pub pivot: f32,
    /// First row that must have the edge.
    pub from: f32,
    /// One past the last such row.
    pub to: f32,
}

/// The best of lines that are drawn on each other.
fn distinct(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by(|a, b| b.share.total_cmp(&a.share));
    let mut kept: Vec<Line> = Vec::new();
    for line in lines {
        let same = |other: &Line| {
            (other.at - line.at).abs() <= SAME_LINE && (other.lean - line.lean).abs() <= SAME_LEAN
        };
        if !kept.iter().any(same) {
            kept.push(line);
        }
        if kept.len() == LINES_MAX {
            break;
        }
    }
    kept
}
