//! Whether a frame is worth the detector: a scene without change costs little. Pure.
//!
//! A frame becomes a coarse grid of grey levels, taken from the raw bytes where the format has luma
//! in the clear, and each cell is compared with what it usually shows and how much that varies. One
//! cell out of the ordinary is a change, and the detector looks at that very frame, so whoever
//! appears is seen as early as without the gate. While somebody is there it looks at every frame,
//! and twice a second in any case: a face that differs from the ground by less than [`LEVELS_MIN`]
//! in every cell it covers is found then.
//!
//! A change that stays becomes the ordinary within some seconds. The gate only spares work: it
//! decides about nobody, and what it cannot read is looked at.

use std::time::Duration;

use crate::camera::pixels::Layout;
use crate::camera::pixels::PixelFormat;
use crate::clock::Moment;
use crate::face::image::Image;

/// Cells across: 20 px of a picture of 640, less than a face that can be judged covers.
const COLUMNS: usize = 32;
/// Cells down.
const ROWS: usize = 24;
/// Samples along each axis of a cell: their mean has a sixth of a pixel's noise, and reading them
/// takes some ten microseconds.
const SAMPLES: usize = 6;

/// Longest time without a look.
pub const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(500);
/// A cell that leaves its usual level by less has not changed, in grey levels: the mean of 36 pixels
/// with noise of 8 levels, a dark corner's, strays by 4 in one of 400 cells.
pub const LEVELS_MIN: f32 = 4.0;
/// A cell that leaves its usual level by more has changed, however restless it is: else a tree in
/// the wind would hide who stands before it.
pub const LEVELS_MAX: f32 = 16.0;
/// Between the two, in mean deviations of the cell: 5 standard deviations of normal noise, which one
/// cell of the grid passes in some thousand frames.
const DEVIATIONS: f32 = 6.0;
/// Share of a frame in what is usual…
const GAIN: f32 = 1.0 / 16.0;
/// …and of a frame that is out of the ordinary: what was put there is usual after some ten seconds.
const GAIN_CHANGED: f32 = 1.0 / 64.0;

/// A frame as a coarse grid of grey levels.
#[derive(Clone, PartialEq)]
pub struct LumaGrid(Vec<f32>);

impl std::fmt::Debug for LumaGrid {
    /// Never the pixels, however coarse.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "LumaGrid({COLUMNS}x{ROWS})")
    }
}

impl LumaGrid {
    /// From the bytes of a frame; `None` when the format hides luma in a file, or bytes are missing.
    pub fn of_bytes(format: PixelFormat, layout: Layout, bytes: &[u8]) -> Option<Self> {
        let step = match format {
            PixelFormat::Yuyv => 2,
            PixelFormat::Nv12 | PixelFormat::Grey => 1,
            PixelFormat::Mjpeg | PixelFormat::Png => return None,
        };
        let (width, height) = (layout.width as usize, layout.height as usize);
        let packed = width.checked_mul(step)?;
        let stride = if layout.stride == 0 { packed } else { layout.stride as usize };
        Self::sampled(width, height, |x, y| {
            let at = y.checked_mul(stride)?.checked_add(x * step)?;
            bytes.get(at).map(|luma| f32::from(*luma))
        })
    }

    /// From a picture: green, which is most of luma.
    pub fn of_image(image: &Image) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let green = |x: usize, y: usize| {
            let at = (y * width + x) * 3 + 1;
            image.pixels().get(at).map(|green| f32::from(*green))
        };
        Self::sampled(width, height, green).unwrap_or_else(|| Self(vec![0.0; COLUMNS * ROWS]))
    }

    fn sampled(
        width: usize,
        height: usize,
        luma: impl Fn(usize, usize) -> Option<f32>,
    ) -> Option<Self> {
        if width == 0 || height == 0 {
            return None;
        }
        let places = |extent: usize, cells: usize| -> Vec<usize> {
            let samples = cells * SAMPLES;
            (0..samples).map(|index| (2 * index + 1) * extent / (2 * samples)).collect()
        };
        let (xs, ys) = (places(width, COLUMNS), places(height, ROWS));
        let mut cells = vec![0.0; COLUMNS * ROWS];
        for (row, y) in ys.iter().enumerate() {
            let cells = &mut cells[row / SAMPLES * COLUMNS..][..COLUMNS];
            for (cell, xs) in cells.iter_mut().zip(xs.chunks_exact(SAMPLES)) {
                for x in xs {
                    *cell += luma(*x, *y)?;
                }
            }
        }
        for cell in &mut cells {
            *cell /= (SAMPLES * SAMPLES) as f32;
        }
        Some(Self(cells))
    }
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Run the detector.
    Look,
    /// Nothing has changed.
    Rest,
}

/// What the scene usually shows.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    /// Empty before the first frame.
    cells: Vec<Usual>,
    last_look: Option<Moment>,
}

/// What a cell usually shows, and how far it strays from it on average.
#[derive(Clone, Copy, Debug)]
struct Usual {
    level: f32,
    deviation: f32,
}

impl Presence {
    /// Nothing is known of the scene.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a frame that was captured at `now`; `occupied`: somebody is there, by the frames before.
    pub fn see(&mut self, now: Moment, grid: Option<&LumaGrid>, occupied: bool) -> Glance {
        let changed = grid.is_none_or(|grid| self.takes_change(grid));
        // A clock that ran backwards counts as time enough.
        let due =
            self.last_look.is_none_or(|last| now < last || now.since(last) >= LOOK_INTERVAL_MAX);
        if changed || occupied || due {
            self.last_look = Some(now);
            return Glance::Look;
        }
        Glance::Rest
    }

    fn takes_change(&mut self, grid: &LumaGrid) -> bool {
        if self.cells.len() != grid.0.len() {
            let usual = |level: &f32| Usual { level: *level, deviation: 0.0 };
            self.cells = grid.0.iter().map(usual).collect();
            return true;
        }
        let cells = self.cells.iter_mut().zip(&grid.0);
        cells.fold(false, |changed, (usual, level)| usual.takes_change(*level) || changed)
    }
}

impl Usual {
    fn takes_change(&mut self, level: f32) -> bool {
        let stray = level - self.level;
        let limit = (DEVIATIONS * self.deviation).clamp(LEVELS_MIN, LEVELS_MAX);
        let changed = stray.abs() > limit;
        let gain = if changed { GAIN_CHANGED } else { GAIN };
        self.level += gain * stray;
        self.deviation += gain * (stray.abs() - self.deviation);
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAYOUT: Layout = Layout { width: 320, height: 240, stride: 0 };
    const PACE: Duration = Duration::from_millis(66);

    /// A grey scene with noise of about two levels and, perhaps, a square of 40 px.
    fn scene(seed: u32, square: Option<u8>) -> Vec<u8> {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(320 * 240);
        for at in 0..320 * 240_usize {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (x, y) = (at % 320, at / 320);
            let level = 60 + (x / 4) as u8;
            let inside = (150..190).contains(&x) && (100..140).contains(&y);
            let level = square.filter(|_| inside).unwrap_or(level);
            bytes.push(level + ((state >> 24) % 7) as u8);
        }
        bytes
    }

    struct Watch {
        presence: Presence,
        now: Moment,
        frame: u32,
    }

    impl Watch {
        fn new() -> Self {
            Self { presence: Presence::new(), now: Moment::from_nanos(1 << 40), frame: 0 }
        }

        fn see(&mut self, square: Option<u8>, occupied: bool) -> Glance {
            self.frame += 1;
            self.now = self.now.plus(PACE);
            let bytes = scene(self.frame, square);
            let grid = LumaGrid::of_bytes(PixelFormat::Grey, LAYOUT, &bytes);
            self.presence.see(self.now, grid.as_ref(), occupied)
        }

        fn looks(&mut self, frames: usize, square: Option<u8>) -> usize {
            (0..frames).filter(|_| self.see(square, false) == Glance::Look).count()
        }
    }

    #[test]
    fn an_empty_scene_is_looked_at_twice_a_second_in_spite_of_its_noise() {
        let mut watch = Watch::new();
        assert_eq!(watch.see(None, false), Glance::Look, "the first frame");
        // Eight frames of 66 ms are the first time past 500 ms.
        assert_eq!(watch.looks(80, None), 10);
    }

    #[test]
    fn a_face_is_looked_at_in_the_very_frame_that_shows_it() {
        for quiet in 1..20 {
            let mut watch = Watch::new();
            watch.looks(quiet, None);
            assert_eq!(watch.see(Some(200), false), Glance::Look, "after {quiet} frames");
            assert_eq!(watch.looks(10, Some(200)), 10, "and for as long as it is new");
        }
    }

    #[test]
    fn while_somebody_is_there_every_frame_is_looked_at() {
        let mut watch = Watch::new();
        watch.looks(30, None);
        assert!((0..30).all(|_| watch.see(None, true) == Glance::Look));
    }

    #[test]
    fn what_was_put_there_becomes_usual_and_is_missed_when_it_goes() {
        let mut watch = Watch::new();
        watch.looks(30, None);
        assert_eq!(watch.looks(60, Some(160)), 60);
        watch.looks(400, Some(160));
        assert_eq!(watch.looks(80, Some(160)), 10);
        assert_eq!(watch.see(None, false), Glance::Look);
    }

    #[test]
    fn a_restless_place_is_tolerated_and_hides_nobody() {
        let mut watch = Watch::new();
        let mut restless = |frames: usize| {
            let sway = |n: usize| if n.is_multiple_of(2) { 96 } else { 104 };
            (0..frames).filter(|n| watch.see(Some(sway(*n)), false) == Glance::Look).count()
        };
        restless(200);
        assert!(restless(80) <= 11, "leaves in the wind");
        assert_eq!(watch.see(Some(160), false), Glance::Look);
    }

    #[test]
    fn every_format_gives_the_same_levels() {
        let grey = scene(1, Some(200));
        let yuyv: Vec<u8> = grey.iter().flat_map(|luma| [*luma, 128]).collect();
        let rgb = grey.iter().flat_map(|luma| [*luma; 3]).collect();
        let image = Image::from_rgb(320, 240, rgb).unwrap();
        let expected = LumaGrid::of_image(&image);
        let mut nv12 = grey.clone();
        nv12.extend(vec![128; 320 * 120]);
        for (format, bytes) in
            [(PixelFormat::Grey, &grey), (PixelFormat::Yuyv, &yuyv), (PixelFormat::Nv12, &nv12)]
        {
            assert_eq!(
                LumaGrid::of_bytes(format, LAYOUT, bytes),
                Some(expected.clone()),
                "{format}"
            );
        }
        assert_eq!(LumaGrid::of_bytes(PixelFormat::Mjpeg, LAYOUT, &grey), None);
        assert_eq!(LumaGrid::of_bytes(PixelFormat::Grey, LAYOUT, &grey[..1000]), None);
    }

    #[test]
    fn what_cannot_be_read_is_looked_at() {
        let mut presence = Presence::new();
        let now = Moment::from_nanos(1 << 40);
        assert!((0..5).all(|_| presence.see(now, None, false) == Glance::Look));
    }

    proptest! {
        #[test]
        fn any_frame_and_any_time_give_an_answer(
            frames in prop::collection::vec(
                (any::<u64>(), 0u32..700, 0u32..700, any::<u32>(), prop::collection::vec(any::<u8>(), 0..4000)),
                0..20),
        ) {
            let mut presence = Presence::new();
            for (now, width, height, stride, bytes) in frames {
                let layout = Layout { width, height, stride };
                for format in [PixelFormat::Grey, PixelFormat::Yuyv, PixelFormat::Nv12] {
                    let grid = LumaGrid::of_bytes(format, layout, &bytes);
                    let unreadable = grid.is_none();
                    let glance = presence.see(Moment::from_nanos(now), grid.as_ref(), false);
                    prop_assert!(!unreadable || glance == Glance::Look);
                }
            }
        }
    }
}
