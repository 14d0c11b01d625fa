//! The border of a phone, a tablet or a sheet of paper around the face.
//!
//! A straight edge beside a face proves nothing: rooms are made of them. What rooms do not have is
//! a rectangle that encloses one face at arm's length of it and ends at its own corners, in front
//! of the shoulders. So lines are looked for in the zones where such a border must lie, and judged
//! together: two sides with the edge that joins them, all four, one corner, or two sides that go
//! on below the chin, where shoulders hide whatever stands behind a person.

use crate::face::cues::Span;
use crate::face::cues::lines::CELLS_PER_FACE;
use crate::face::cues::lines::Edges;
use crate::face::cues::lines::Line;
use crate::face::cues::lines::Map;
use crate::face::cues::lines::Zone;
use crate::face::detection::Detection;
use crate::face::geometry::Rect;
use crate::face::image::Image;

/// Least side of the face box in pixels.
pub const SIDE_PX_MIN: f32 = 60.0;
/// How far the map reaches from the middle of the face: to both sides, in face widths, then up and
/// down, in face heights.
const REACH: [f32; 3] = [2.2, 1.9, 2.2];
/// Borders farther from the face box than this, in its widths and heights, are of the room: beside
/// it, above it and below it. A phone shows a face as large as it can.
const BORDER_MAX: [f32; 3] = [1.2, 1.0, 1.3];
/// The face's own outline reaches this far past its box, in face widths.
const OUTLINE: f32 = 0.05;
/// Without this much picture beside the face on two sides, in face widths, no border could be seen.
const MARGIN_MIN: f32 = 0.3;
/// Least share of a zone that a line must cover to be looked at.
const SHARE_MIN: f32 = 0.55;
/// Least share of a side, from its corner on.
const SIDE_SHARE_MIN: f32 = 0.5;
/// Around a corner this much, in face widths, may be round.
const CORNER: f32 = 0.06;
/// How far past a corner its lines must not go on, in face widths: rooms' edges do.
const BEYOND: f32 = 0.35;
/// What a line that goes on past its corner takes off, times the share of it that does.
const BEYOND_COST: f32 = 0.5;
/// How far below the chin two sides without a cross edge must go on, in face heights.
const BELOW_CHIN: f32 = 0.6;
/// Least part of that which the picture must show.
const BELOW_CHIN_SHOWN_MIN: f32 = 0.3;
/// Fewest cells that tell whether a line goes on.
const CELLS_MIN: usize = 3;

/// The evidence of each kind at which the score is 0.5. Of 5,369 portraits of Labeled Faces in the
/// Wild 18 reach any of them, and 11 of those are photographs of photographs (design note 0005).
const LIMITS: Evidence = Evidence { top: 0.80, bottom: 0.73, all: 0.60, corner: 0.95, open: 0.92 };

/// How free the surroundings are of an enclosing border: 1 without a trace, 0.5 at the limit of
/// what rooms look like. `None` when the face is smaller than [`SIDE_PX_MIN`], or the picture ends
/// so close to it that no border could be seen.
pub fn surround(image: &Image, face: &Detection) -> Option<f32> {
    let evidence = evidence(image, face)?;
    let strongest = [
        evidence.top / LIMITS.top,
        evidence.bottom / LIMITS.bottom,
        evidence.all / LIMITS.all,
        evidence.corner / LIMITS.corner,
        evidence.open / LIMITS.open,
    ]
    .into_iter()
    .fold(0.0, f32::max);
    Some((1.0 - 0.5 * strongest).clamp(0.0, 1.0))
}

/// The best rectangle of each kind: the share of it that has edges, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Both sides and the edge above that joins them.
    pub top: f32,
    /// Both sides and the edge below.
    pub bottom: f32,
    /// Both sides, above and below.
    pub all: f32,
    /// One side and one edge across that end where they meet.
    pub corner: f32,
    /// Both sides from the eyes to below the chin.
    pub open: f32,
}

/// What encloses the face, by kind.
pub fn evidence(image: &Image, face: &Detection) -> Option<Evidence> {
    let search = Search::new(image, face.bounds)?;
    let face = search.face;
    let (eyes, chin) = (face.y + 0.1 * face.height, face.bottom());
    let beside =
        |near: f32, far: f32| Zone { near, far, pivot: face.centre().y, from: eyes, to: chin };
    let across =
        |near, far| Zone { near, far, pivot: face.centre().x, from: face.x, to: face.right() };
    let (reach, outline) = (BORDER_MAX[0] * face.width, OUTLINE * face.width);
    let lines = |edges: &Edges, zone: Zone| edges.lines(&zone, SHARE_MIN);
    let sides = [
        lines(&search.upright, beside(face.x - reach, face.x - outline)),
        lines(&search.upright, beside(face.right() + outline, face.right() + reach)),
    ];
    // Above, the box ends at the hairline: a border may cut into it.
    let (above, below) = (BORDER_MAX[1] * face.height, BORDER_MAX[2] * face.height);
    let crossing = [
        lines(&search.across, across(face.y - above, face.y + outline)),
        lines(&search.across, across(face.bottom() + outline, face.bottom() + below)),
    ];
    Some(search.evidence(&sides, &crossing))
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Top,
    Bottom,
}

struct Search {
    face: Rect,
    upright: Edges,
    across: Edges,
}

impl Search {
    fn new(image: &Image, bounds: Rect) -> Option<Self> {
        if !(bounds.width >= SIDE_PX_MIN && bounds.height >= SIDE_PX_MIN) {
            return None;
        }
        let (width, height) = (image.width() as f32, image.height() as f32);
        let margins = [
            bounds.x / bounds.width,
            (width - bounds.right()) / bounds.width,
            bounds.y / bounds.width,
            (height - bounds.bottom()) / bounds.width,
        ];
        if margins.iter().filter(|margin| **margin >= MARGIN_MIN).count() < 2 {
            return None;
        }
        let centre = bounds.centre();
        let [aside, up, down] = REACH;
        let columns = Span::covered(
            centre.x - aside * bounds.width,
            centre.x + aside * bounds.width,
            image.width(),
        )?;
        let rows = Span::covered(
            centre.y - up * bounds.height,
            centre.y + down * bounds.height,
            image.height(),
        )?;
        let cell_px = bounds.width / CELLS_PER_FACE;
        let map = Map::draw(image, (columns, rows), cell_px)?;
        let face = Rect {
            x: (bounds.x - columns.start as f32) / cell_px,
            y: (bounds.y - rows.start as f32) / cell_px,
            width: bounds.width / cell_px,
            height: bounds.height / cell_px,
        };
        let [upright, across] = Edges::both(&map);
        Some(Self { face, upright, across })
    }

    fn evidence(&self, sides: &[Vec<Line>; 2], crossing: &[Vec<Line>; 2]) -> Evidence {
        let [lefts, rights] = sides;
        let ends = [End::Top, End::Bottom];
        // By end and edge across: the corners with each left and with each right side.
        let corners: Vec<(Vec<f32>, Vec<f32>)> = ends
            .into_iter()
            .zip(crossing)
            .flat_map(|(end, edges)| edges.iter().map(move |edge| (end, edge)))
            .map(|(end, edge)| {
                let with = |lines: &[Line], side| {
                    lines.iter().map(|line| self.corner((line, side), (edge, end))).collect()
                };
                (with(lefts, Side::Left), with(rights, Side::Right))
            })
            .collect();
        let all = corners.iter().flat_map(|(lefts, rights)| lefts.iter().chain(rights));
        let mut best = Evidence { corner: all.copied().fold(0.0, f32::max), ..Evidence::default() };
        let (top, bottom) = corners.split_at(crossing[0].len());
        for (l, left) in lefts.iter().enumerate() {
            for (r, right) in rights.iter().enumerate() {
                if !left.is_along(right) {
                    continue;
                }
                best.open = best.open.max(self.open(left, right));
                let joined = |edges: &[Line], corners: &[(Vec<f32>, Vec<f32>)]| {
                    let pairs = edges.iter().zip(corners);
                    let share = |(edge, (lefts, rights)): (&Line, &(Vec<f32>, Vec<f32>))| {
                        self.joined(left, right, edge, lefts[l].min(rights[r]))
                    };
                    pairs.map(share).fold(0.0, f32::max)
                };
                let (top, bottom) = (joined(&crossing[0], top), joined(&crossing[1], bottom));
                best.top = best.top.max(top);
                best.bottom = best.bottom.max(bottom);
                best.all = best.all.max(top.min(bottom));
            }
        }
        best
    }

    /// How much of the side and of the edge across is there, from their corner to the far end of
    /// the face, less what goes on beyond the corner.
    fn corner(&self, (upright, side): (&Line, Side), (edge, end): (&Line, End)) -> f32 {
        if !upright.is_square_to(edge) {
            return 0.0;
        }
        let (x, y) = upright.meets(edge);
        let (gap, beyond) = (CORNER * self.face.width, BEYOND * self.face.width);
        let (along, past) = match end {
            End::Top => ((y + gap, self.face.bottom()), (y - gap - beyond, y - gap)),
            End::Bottom => ((self.face.y, y - gap), (y + gap, y + gap + beyond)),
        };
        let (across, past_across) = match side {
            Side::Left => ((x + gap, self.face.right()), (x - gap - beyond, x - gap)),
            Side::Right => ((self.face.x, x - gap), (x + gap, x + gap + beyond)),
        };
        let down = self.upright.coverage(upright, along.0, along.1).0;
        if down < SIDE_SHARE_MIN {
            return 0.0;
        }
        let least = down.min(self.across.coverage(edge, across.0, across.1).0);
        if least < SIDE_SHARE_MIN {
            return 0.0;
        }
        let past = [
            self.upright.coverage(upright, past.0, past.1),
            self.across.coverage(edge, past_across.0, past_across.1),
        ];
        let known = |(share, cells): (f32, usize)| if cells < CELLS_MIN { 0.0 } else { share };
        (least - BEYOND_COST * known(past[0]).max(known(past[1]))).max(0.0)
    }

    /// Two sides and the edge across that joins them in corners of this share.
    fn joined(&self, left: &Line, right: &Line, edge: &Line, corners: f32) -> f32 {
        if corners == 0.0 {
            return 0.0;
        }
        let gap = CORNER * self.face.width;
        let (from, to) = (left.meets(edge).0 + gap, right.meets(edge).0 - gap);
        corners.min(self.across.coverage(edge, from, to).0)
    }

    /// Two sides that go on below the chin.
    fn open(&self, left: &Line, right: &Line) -> f32 {
        let chin = self.face.bottom();
        let below = [left, right]
            .map(|side| self.upright.coverage(side, chin, chin + BELOW_CHIN * self.face.height));
        let shown = BELOW_CHIN_SHOWN_MIN * self.face.height;
        if below.iter().any(|(_, rows)| (*rows as f32) < shown) {
            return 0.0;
        }
        left.share.min(right.share).min(below[0].0).min(below[1].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::cues::drawn;

    const SIZE: (u32, u32) = (640, 480);

    fn face() -> Detection {
        drawn::face(260.0, 170.0, 110.0, 140.0)
    }

    /// Head and shoulders before a wall with faint texture.
    fn person(x: f32, y: f32) -> f32 {
        let bounds = face().bounds;
        let (across, down) = ((x - 315.0) / 55.0, (y - 240.0) / 82.0);
        let shoulders = y > 330.0 && (x - 315.0).abs() < 90.0 + (y - 330.0) * 1.2;
        if across.hypot(down) < 1.0 {
            drawn::head(bounds, x, y)
        } else if shoulders {
            60.0 + 6.0 * drawn::noise(x, y, 4)
        } else {
            150.0 + 10.0 * (x / 90.0).sin() + 5.0 * drawn::noise(x, y, 2)
        }
    }

    fn score(brightness: impl Fn(f32, f32) -> f32) -> f32 {
        surround(&drawn::picture(SIZE.0, SIZE.1, |x, y| [brightness(x, y); 3]), &face()).unwrap()
    }

    /// Where (x, y) lies with respect to the middle of the face, turned.
    fn turned(x: f32, y: f32, degrees: f32) -> (f32, f32) {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (x, y) = (x - 315.0, y - 240.0);
        (x * cos + y * sin, y * cos - x * sin)
    }

    /// The distance from (x, y) to the outline of a rectangle around the face; negative inside.
    fn outside(
        x: f32,
        y: f32,
        (left, top, right, bottom): (f32, f32, f32, f32),
        degrees: f32,
    ) -> f32 {
        let (x, y) = turned(x, y, degrees);
        (left - x).max(x - right).max(top - y).max(y - bottom)
    }

    #[test]
    fn a_person_before_a_wall_has_no_border() {
        let plain = score(person);
        assert!(plain > 0.7, "{plain}");
    }

    #[test]
    fn a_phone_around_the_face_is_seen() {
        let phone = (-95.0, -150.0, 95.0, 190.0);
        for degrees in [0.0, 3.0, -8.0] {
            let held = score(|x, y| match outside(x, y, phone, degrees) {
                inside if inside < -10.0 => person(x, y) + 30.0,
                bezel if bezel < 0.0 => 15.0 + 3.0 * drawn::noise(x, y, 8),
                _ => 120.0 + 10.0 * (x / 70.0).cos() + 5.0 * drawn::noise(x, y, 2),
            });
            assert!(held < 0.5, "{degrees} degrees: {held}");
        }
    }

    #[test]
    fn a_sheet_whose_foot_is_out_of_the_picture_is_seen() {
        let sheet = (-110.0, -140.0, 120.0, 900.0);
        let held = score(|x, y| {
            if outside(x, y, sheet, 2.0) < 0.0 { person(x, y) } else { 90.0 + (y / 40.0).sin() }
        });
        assert!(held < 0.5, "{held}");
    }

    #[test]
    fn the_same_rectangle_far_away_is_of_the_room() {
        let window = (-290.0, -225.0, 290.0, 225.0);
        let room = score(|x, y| if outside(x, y, window, 0.0) < 0.0 { person(x, y) } else { 40.0 });
        assert!(room > 0.6, "{room}");
    }

    #[test]
    fn a_door_frame_behind_the_shoulders_is_of_the_room() {
        let room = score(|x, y| {
            let behind =
                (person(x, y) - 150.0).abs() < 16.0 && !(y > 330.0 && (x - 315.0).abs() < 90.0);
            if behind && !(200.0..=430.0).contains(&x) { 230.0 } else { person(x, y) }
        });
        assert!(room > 0.5, "{room}");
    }

    #[test]
    fn a_picture_on_the_wall_and_stripes_of_a_shirt_are_of_the_room() {
        let wall = score(|x, y| {
            let frame = (430.0..600.0).contains(&x) && (40.0..200.0).contains(&y);
            if frame { 40.0 } else { person(x, y) }
        });
        assert!(wall > 0.5, "{wall}");
        let shirt = score(|x, y| {
            let cloth = y > 330.0 && (x - 315.0).abs() < 90.0 + (y - 330.0) * 1.2;
            if cloth && (y / 12.0) as i32 % 2 == 0 { 200.0 } else { person(x, y) }
        });
        assert!(shirt > 0.5, "{shirt}");
    }

    #[test]
    fn bars_around_the_picture_and_its_own_border_are_none() {
        let bars = score(|x, y| {
            let shown = (160.0..470.0).contains(&x) && y > 60.0;
            if shown { person(x, y) } else { 0.0 }
        });
        assert!(bars > 0.6, "{bars}");
        let tilted = score(|x, y| {
            if outside(x, y, (-150.0, -180.0, 150.0, 900.0), 6.0) < 0.0 {
                person(x, y)
            } else {
                1.0
            }
        });
        assert!(tilted > 0.6, "{tilted}");
    }

    #[test]
    fn a_small_face_and_one_that_fills_the_picture_are_not_judged() {
        let image = drawn::picture(300, 300, |x, y| [person(x, y); 3]);
        assert_eq!(surround(&image, &drawn::face(100.0, 100.0, 59.0, 80.0)), None);
        assert!(surround(&image, &drawn::face(100.0, 100.0, 61.0, 80.0)).is_some());
        assert_eq!(surround(&image, &drawn::face(20.0, 10.0, 260.0, 280.0)), None);
    }
}
