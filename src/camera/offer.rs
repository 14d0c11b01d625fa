//! Which of the formats, sizes and rates that a camera offers is taken. Pure.
//!
//! Every offer has a cost, and the least is tried first:
//!
//! | part | cost |
//! |---|---|
//! | size | 4 × \|ln(area / wanted area)\|, doubled when a side is smaller than wanted, plus 4 × \|ln(aspect / wanted aspect)\| |
//! | rate | 2 × the missing share of the wanted frames per second |
//! | format | up to 20 MB/s uncompressed: YUYV 0, NV12 0.05, MJPEG 0.1, GREY 0.5; above: MJPEG 0, YUYV and NV12 0.3, GREY 0.5 |
//!
//! Uncompressed pictures cost no decoding and have no artefacts; 20 MB/s is what USB 2 carries in
//! practice (24 MB/s of isochronous traffic, less the overhead), and above it cameras deliver
//! fewer frames than they offer. GREY lacks the colours that presentation attack detection uses.

use crate::camera::pixels::PixelFormat;

/// One line of what a camera can do.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Arrangement of the pixels.
    pub format: PixelFormat,
    /// Sizes in this format.
    pub size: SizeOffer,
    /// Frames per second, in any order; empty when the driver does not say.
    pub rates_fps: Vec<f32>,
}

/// Sizes of one offer, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeOffer {
    /// This size.
    Exact {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Any size between `min` and `max` in steps, each as columns and rows.
    Range {
        /// Smallest.
        min: (u32, u32),
        /// Largest.
        max: (u32, u32),
        /// Step from the smallest; 0 counts as 1.
        step: (u32, u32),
    },
    /// The driver does not say.
    Unknown,
}

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Columns and rows.
    pub size: (u32, u32),
    /// Frames per second, at least 1.
    pub fps: u32,
    /// Ask for this format first, whatever the camera offers.
    pub format: Option<PixelFormat>,
}

/// What to ask the driver for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Arrangement of the pixels.
    pub format: PixelFormat,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Uncompressed traffic in bytes per second from which MJPEG is preferred.
const RAW_BYTES_PER_S_MAX: f64 = 20e6;

/// Choices from the best to the worst, each once.
pub fn ranked(offers: &[Offer], wanted: &Wanted) -> Vec<Choice> {
    let mut costs: Vec<(f64, Choice)> = offers
        .iter()
        .map(|offer| {
            let (width, height) = nearest(offer.size, wanted.size);
            let choice = Choice { format: offer.format, width, height };
            (cost(&choice, &offer.rates_fps, wanted), choice)
        })
        .collect();
    costs.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let mut choices: Vec<Choice> = Vec::with_capacity(costs.len() + 1);
    if let Some(format) = wanted.format {
        let offered = costs.iter().find(|(_, choice)| choice.format == format);
        let (width, height) = wanted.size;
        choices.push(offered.map_or(Choice { format, width, height }, |(_, choice)| *choice));
    }
    for (_, choice) in costs {
        if !choices.contains(&choice) {
            choices.push(choice);
        }
    }
    choices
}

fn cost(choice: &Choice, rates_fps: &[f32], wanted: &Wanted) -> f64 {
    let Choice { format, width, height } = *choice;
    let (wanted_width, wanted_height) = wanted.size;
    let [columns, rows] = [(width, wanted_width), (height, wanted_height)]
        .map(|(got, wanted)| (f64::from(got.max(1)) / f64::from(wanted.max(1))).ln());
    let smaller = if columns < 0.0 || rows < 0.0 { 2.0 } else { 1.0 };
    let size = 4.0 * (columns + rows).abs() * smaller + 4.0 * (columns - rows).abs();

    let fastest = rates_fps.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let missing =
        if fastest > 0.0 { 1.0 - f64::from(fastest) / f64::from(wanted.fps) } else { 0.0 };

    let raw_bytes_per_s = f64::from(width) * f64::from(height) * 2.0 * f64::from(wanted.fps);
    let raw_fits = raw_bytes_per_s <= RAW_BYTES_PER_S_MAX;
    let format = match (format, raw_fits) {
        (PixelFormat::Yuyv, true) | (PixelFormat::Mjpeg, false) => 0.0,
        (PixelFormat::Nv12, true) => 0.05,
        (PixelFormat::Mjpeg, true) => 0.1,
        (PixelFormat::Yuyv | PixelFormat::Nv12, false) => 0.3,
        (PixelFormat::Grey | PixelFormat::Png, _) => 0.5,
    };
    size + 2.0 * missing.max(0.0) + format
}

fn nearest(offer: SizeOffer, wanted: (u32, u32)) -> (u32, u32) {
    match offer {
        SizeOffer::Exact { width, height } => (width, height),
        SizeOffer::Unknown => wanted,
        SizeOffer::Range { min, max, step } => {
            let side = |wanted: u32, min: u32, max: u32, step: u32| {
                let step = step.max(1);
                let inside = wanted.clamp(min, max.max(min));
                let down = min + (inside - min) / step * step;
                let up = down.saturating_add(step);
                if inside - down > up.saturating_sub(inside) && up <= max { up } else { down }
            };
            (side(wanted.0, min.0, max.0, step.0), side(wanted.1, min.1, max.1, step.1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PixelFormat::{Grey, Mjpeg, Nv12, Yuyv};
    use proptest::prelude::*;

    fn exact(format: PixelFormat, width: u32, height: u32, fps: f32) -> Offer {
        Offer { format, size: SizeOffer::Exact { width, height }, rates_fps: vec![5.0, fps] }
    }

    /// What a common USB 2 camera lists.
    fn webcam() -> Vec<Offer> {
        vec![
            exact(Yuyv, 640, 480, 30.0),
            exact(Yuyv, 1280, 720, 10.0),
            exact(Yuyv, 1920, 1080, 5.0),
            exact(Mjpeg, 640, 480, 30.0),
            exact(Mjpeg, 1280, 720, 30.0),
            exact(Mjpeg, 1920, 1080, 30.0),
            exact(Mjpeg, 640, 360, 30.0),
        ]
    }

    fn best(offers: &[Offer], size: (u32, u32), fps: u32) -> (PixelFormat, u32, u32) {
        let choice = ranked(offers, &Wanted { size, fps, format: None })[0];
        (choice.format, choice.width, choice.height)
    }

    #[test]
    fn the_table_of_choices() {
        let infrared = vec![exact(Grey, 640, 360, 30.0)];
        let range = SizeOffer::Range { min: (32, 32), max: (2592, 1944), step: (2, 2) };
        let board = vec![
            Offer { format: Nv12, size: range, rates_fps: vec![] },
            Offer { format: Mjpeg, size: range, rates_fps: vec![] },
        ];
        let mixed = vec![exact(Grey, 640, 480, 30.0), exact(Yuyv, 640, 480, 15.0)];
        let silent = vec![Offer { format: Yuyv, size: SizeOffer::Unknown, rates_fps: vec![] }];
        let cases = [
            (webcam(), (640, 480), 15, (Yuyv, 640, 480)),
            (webcam(), (1280, 720), 15, (Mjpeg, 1280, 720)),
            (webcam(), (1280, 720), 10, (Yuyv, 1280, 720)),
            (webcam(), (640, 480), 60, (Mjpeg, 640, 480)),
            (webcam(), (800, 600), 15, (Yuyv, 640, 480)),
            (webcam(), (1900, 1000), 15, (Mjpeg, 1920, 1080)),
            (webcam(), (640, 350), 15, (Mjpeg, 640, 360)),
            (webcam(), (10_000, 10_000), 15, (Mjpeg, 1920, 1080)),
            (infrared, (640, 480), 15, (Grey, 640, 360)),
            (board.clone(), (641, 480), 15, (Nv12, 640, 480)),
            (board, (1920, 1080), 30, (Mjpeg, 1920, 1080)),
            (mixed, (640, 480), 15, (Yuyv, 640, 480)),
            (silent, (640, 480), 15, (Yuyv, 640, 480)),
        ];
        for (offers, size, fps, expected) in cases {
            assert_eq!(best(&offers, size, fps), expected, "{size:?} at {fps} of {offers:?}");
        }
    }

    #[test]
    fn a_format_that_is_asked_for_comes_first_even_when_not_offered() {
        let wanted = Wanted { size: (640, 480), fps: 15, format: Some(Nv12) };
        let choices = ranked(&webcam(), &wanted);
        assert_eq!(choices[0], Choice { format: Nv12, width: 640, height: 480 });
        assert_eq!(choices[1].format, Yuyv);
        let wanted = Wanted { format: Some(Mjpeg), ..wanted };
        assert_eq!(ranked(&webcam(), &wanted)[0].format, Mjpeg);
    }

    proptest! {
        #[test]
        fn hostile_ranges_do_no_harm(
            min: (u32, u32), max: (u32, u32), step: (u32, u32), size: (u32, u32), fps in 1u32..500,
            rate: f32,
        ) {
            let size_offer = SizeOffer::Range { min, max, step };
            let offers = vec![
                Offer { format: Yuyv, size: size_offer, rates_fps: vec![rate] },
                exact(Mjpeg, 640, 480, 30.0),
            ];
            prop_assert_eq!(ranked(&offers, &Wanted { size, fps, format: None }).len(), 2);
            let (width, height) = nearest(size_offer, size);
            prop_assert!(width >= min.0 && height >= min.1);
            prop_assert!(max.0 < min.0 || width <= max.0);
        }
    }
}
