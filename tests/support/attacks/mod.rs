//! Synthetic presentation attacks from bona fide pictures, for regression.
//!
//! A medium (paper, screen, cut-out) is described in millimetres, lit, placed before a room, and
//! taken by a camera model; the control is the bona fide picture under the same camera model. The
//! same seed, source and species give the same bytes. Everything is synthetic: what a detector
//! scores here says whether it got worse, not how good it is (docs/design/0004).

pub mod camera;
pub mod cutout;
pub mod draw;
pub mod light;
pub mod print;
pub mod room;
pub mod screen;
pub mod source;
pub mod view;

use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::attacks::camera::Camera;
use crate::attacks::camera::Window;
use crate::attacks::cutout::CutOut;
use crate::attacks::cutout::HeldCutOut;
use crate::attacks::draw::Draw;
use crate::attacks::light::Light;
use crate::attacks::light::Rgb;
use crate::attacks::light::white_of;
use crate::attacks::print::HeldPrint;
use crate::attacks::print::Print;
use crate::attacks::print::PrintPlan;
use crate::attacks::print::Raster;
use crate::attacks::room::Room;
use crate::attacks::screen::Device;
use crate::attacks::screen::HeldScreen;
use crate::attacks::screen::Screen;
use crate::attacks::screen::SeenBy;
use crate::attacks::source::Framing;
use crate::attacks::source::Source;
use crate::attacks::view::Placement;
use crate::attacks::view::Sheet;
use crate::attacks::view::View;

/// Samples per pixel of the frame, each way.
pub const SAMPLES: usize = 4;

/// What is made of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Species {
    /// Bona fide: the picture itself under the camera model.
    Control,
    /// Raster print with its edges in view.
    PrintRaster,
    /// Photo print without raster, its edges in view.
    PrintPhoto,
    /// Either print, so near that no edge is in view.
    PrintClose,
    /// On a phone.
    ReplayPhone,
    /// On a tablet.
    ReplayTablet,
    /// On a laptop.
    ReplayLaptop,
    /// On a monitor so large that no edge is in view.
    ReplayMonitor,
    /// Print cut along the face.
    CutOut,
    /// The same with holes for the eyes.
    CutOutEyes,
}

impl Species {
    /// All of them, the control first.
    pub const ALL: [Self; 10] = [
        Self::Control,
        Self::PrintRaster,
        Self::PrintPhoto,
        Self::PrintClose,
        Self::ReplayPhone,
        Self::ReplayTablet,
        Self::ReplayLaptop,
        Self::ReplayMonitor,
        Self::CutOut,
        Self::CutOutEyes,
    ];

    /// Its name, of folders and options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::PrintRaster => "print-raster",
            Self::PrintPhoto => "print-photo",
            Self::PrintClose => "print-close",
            Self::ReplayPhone => "replay-phone",
            Self::ReplayTablet => "replay-tablet",
            Self::ReplayLaptop => "replay-laptop",
            Self::ReplayMonitor => "replay-monitor",
            Self::CutOut => "cut-out",
            Self::CutOutEyes => "cut-out-eyes",
        }
    }

    const fn device(self) -> Device {
        match self {
            Self::ReplayPhone => Device::Phone,
            Self::ReplayTablet => Device::Tablet,
            Self::ReplayLaptop => Device::Laptop,
            _ => Device::Monitor,
        }
    }

    /// Whether the medium fills the frame.
    const fn covers(self) -> bool {
        matches!(self, Self::Control | Self::PrintClose | Self::ReplayMonitor)
    }
}

/// A place on the medium.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// From the middle of the shown face.
    pub mm: [f32; 2],
    /// Sine of the bend there.
    pub slope: f32,
    /// Row of the frame, for what a rolling shutter sees.
    pub row: f32,
}

/// Something held in front of the camera.
pub trait Medium: Sync {
    /// Light from a place on it; nothing where the room is seen.
    fn light(&self, spot: &Spot) -> Option<Rgb>;
    /// Share of the room's light that its shadow leaves behind a place.
    fn behind(&self, _mm: [f32; 2]) -> f32 {
        1.0
    }
    /// Outside of this nothing of it is seen.
    fn extent(&self) -> Sheet;
}

/// The picture itself, without a medium.
struct Direct<'a> {
    source: &'a Source,
    white: Rgb,
}

impl Medium for Direct<'_> {
    fn light(&self, spot: &Spot) -> Option<Rgb> {
        Some(light::times(self.source.at(spot.mm), self.white))
    }

    fn extent(&self) -> Sheet {
        let far = 1e6;
        Sheet { left: -far, top: -far, right: far, bottom: far }
    }
}

/// A made picture.
pub struct Sample {
    /// The JPEG file.
    pub file: Vec<u8>,
    /// What was drawn for it.
    pub parameters: Value,
}

/// Makes one picture. `other` lends its eyes and its blurred self to the background.
pub fn make(source: &Source, other: &Source, species: Species, seed: u64) -> Sample {
    let mut draw = Draw::new(seed, &[&source.digest, species.name()]);
    let framing =
        if species.covers() { source.covering(&mut draw) } else { source.held(&mut draw) };
    let room = Room::draw(&mut draw, true);
    let camera = Camera::draw(&mut draw);
    let stage = Stage { species, framing, room: &room, sample_sigma: camera.sample_sigma() };
    let (placement, scene, facts) = staged(&mut draw, source, other, &stage);
    let view = View::new(&placement);
    let behind = room.seen(framing.frame_px, scene.room_white, Some(other.light()));
    let row = |y: usize, line: &mut [Rgb]| scene_row(&view, &*scene.medium, &behind, y, line);
    let file = camera.take(framing.frame_px, &row, scene.white, face_window(&framing, source));
    let parameters = json!({
        "species": species.name(),
        "seed": seed,
        "source": source.digest,
        "other": other.digest,
        "enlarged": source.enlarged(framing.face_px),
        "placement": json(&placement),
        "medium": facts,
        "room": json(&room),
        "camera": json(&camera),
    });
    Sample { file, parameters }
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("plain data becomes JSON")
}

/// A medium and the colours of the light around it.
struct Scene<'a> {
    medium: Box<dyn Medium + 'a>,
    /// The light that white balance looks at.
    white: Rgb,
    room_white: Rgb,
}

/// What is settled before the medium.
struct Stage<'a> {
    species: Species,
    framing: Framing,
    room: &'a Room,
    sample_sigma: f32,
}

/// Puts a species together.
fn staged<'a>(
    draw: &mut Draw,
    source: &'a Source,
    other: &'a Source,
    stage: &Stage,
) -> (Placement, Scene<'a>, Value) {
    let Stage { species, framing, room, sample_sigma } = *stage;
    match species {
        Species::Control => {
            let white = white_of(draw.within([5500.0, 7500.0]));
            let placement = placed(draw, framing, 1.0, Stance::STRAIGHT);
            let medium = Box::new(Direct { source, white });
            (placement, Scene { medium, white, room_white: white }, Value::Null)
        }
        Species::PrintRaster | Species::PrintPhoto | Species::PrintClose => {
            let (print, placement) = printed(draw, source, species, framing);
            let facts = json(&print);
            let white = white_of(print.lamp.kelvin);
            let medium = Box::new(HeldPrint { print, source });
            (placement, Scene { medium, white, room_white: white }, facts)
        }
        Species::CutOut | Species::CutOutEyes => {
            let (print, placement) = printed(draw, source, species, framing);
            let cut = CutOut::draw(draw, print, source, species == Species::CutOutEyes);
            let facts = json(&cut);
            let white = white_of(cut.print.lamp.kelvin);
            let medium = Box::new(HeldCutOut { cut, source, other });
            (placement, Scene { medium, white, room_white: white }, facts)
        }
        Species::ReplayPhone
        | Species::ReplayTablet
        | Species::ReplayLaptop
        | Species::ReplayMonitor => {
            let seen_by = SeenBy { face_px: framing.face_px, sample_sigma };
            let screen = Screen::draw(draw, species.device(), source, seen_by);
            let stance =
                if species == Species::ReplayMonitor { Stance::CLOSE } else { Stance::HELD };
            let placement = placed(draw, framing, screen.face_mm, stance);
            let facts = json(&screen);
            let room_white = white_of(draw.within([3000.0, 7000.0]));
            let ambient = room_white.map(|value| value * room.level);
            let mirrored = room.seen([64, 64], room_white, None);
            // The camera balances for the lamp or for the screen, whichever wins.
            let white = light::blend(room_white, white_of(screen.kelvin), draw.unit());
            let medium = Box::new(HeldScreen { screen, source, mirrored, ambient });
            (placement, Scene { medium, white, room_white }, facts)
        }
    }
}

/// A print of the source, and how it is held.
fn printed(
    draw: &mut Draw,
    source: &Source,
    species: Species,
    framing: Framing,
) -> (Print, Placement) {
    let cut = matches!(species, Species::CutOut | Species::CutOutEyes);
    let close = species == Species::PrintClose;
    // A cut-out has the size of the face that it hides; other prints go from postcard to A3.
    let face_mm = if cut { draw.within([125.0, 165.0]) } else { draw.scaled([40.0, 170.0]) };
    let stance = match species {
        Species::PrintClose => Stance::CLOSE,
        Species::CutOut | Species::CutOutEyes => Stance::WORN,
        _ => Stance::HELD_PAPER,
    };
    let placement = placed(draw, framing, face_mm, stance);
    let mm_per_px = face_mm / framing.face_px;
    let raster = match species {
        Species::PrintRaster => true,
        Species::PrintPhoto => false,
        _ => draw.chance(0.5),
    };
    let raster = raster.then(|| Raster::draw(draw, mm_per_px, mm_per_px / SAMPLES as f32));
    let [left, top, right, bottom] = source.reach;
    let share =
        if close || cut { [99.0; 2] } else { [draw.within([0.75, 1.4]), draw.within([1.0, 1.9])] };
    let uneven = [draw.within([0.85, 1.15]), draw.within([0.85, 1.15])];
    let picture = Sheet {
        left: -left.min(share[0] * uneven[0]) * face_mm,
        top: -top.min(share[1] * uneven[1]) * face_mm,
        right: right.min(share[0] * (2.0 - uneven[0])) * face_mm,
        bottom: bottom.min(share[1] * (2.0 - uneven[1])) * face_mm,
    };
    let plan = PrintPlan { face_mm, picture, edges: !close && !cut, raster };
    (Print::draw(draw, plan), placement)
}

/// How far a medium is turned and bent.
#[derive(Clone, Copy)]
struct Stance {
    roll_deg: f32,
    tilt_deg: f32,
    /// Radius of the bend in widths of the face; none is flat.
    bend: Option<[f32; 2]>,
}

impl Stance {
    const STRAIGHT: Self = Self { roll_deg: 0.0, tilt_deg: 0.0, bend: None };
    const CLOSE: Self = Self { roll_deg: 0.0, tilt_deg: 1.2, bend: None };
    const HELD: Self = Self { roll_deg: 8.0, tilt_deg: 13.0, bend: None };
    const HELD_PAPER: Self = Self { roll_deg: 9.0, tilt_deg: 14.0, bend: Some([2.5, 14.0]) };
    const WORN: Self = Self { roll_deg: 7.0, tilt_deg: 10.0, bend: Some([0.75, 2.5]) };
}

fn placed(draw: &mut Draw, framing: Framing, face_mm: f32, stance: Stance) -> Placement {
    let Framing { frame_px, face_px, anchor_px } = framing;
    // Focal length of door and web cameras, 55 to 75 degrees across, in longer sides of the frame.
    let focal = draw.within([0.65, 1.0]) * frame_px[0].max(frame_px[1]) as f32;
    let mut turn = |most: f32| draw.within([-most, most]);
    let (roll_deg, yaw_deg, pitch_deg) =
        (turn(stance.roll_deg), turn(stance.tilt_deg), turn(stance.tilt_deg));
    Placement {
        frame_px,
        face_px,
        anchor_px,
        face_mm,
        roll_deg,
        yaw_deg,
        pitch_deg,
        distance_mm: focal * face_mm / face_px,
        bend_radius_mm: stance.bend.map_or(0.0, |range| draw.scaled(range) * face_mm),
        bend_axis_deg: draw.within([-25.0, 25.0]),
    }
}

fn face_window(framing: &Framing, source: &Source) -> Window {
    let half = [framing.face_px * 0.4, framing.face_px * source.aspect * 0.4];
    let [x, y] = framing.anchor_px;
    let px = [x - half[0], y - half[1], x + half[0], y + half[1]];
    Window { px: px.map(|px| px.max(0.0) as usize) }
}

/// One row of samples: the medium where it may be, each sample by itself, the room elsewhere.
fn scene_row(view: &View, medium: &dyn Medium, behind: &Light, y: usize, line: &mut [Rgb]) {
    let extent = medium.extent();
    let row = (y as f32 + 0.5) / SAMPLES as f32 - 0.5;
    let pixel_row = (y / SAMPLES) * behind.width;
    for (pixel, samples) in line.chunks_exact_mut(SAMPLES).enumerate() {
        let room = behind.values[pixel_row + pixel];
        let mm = view.mm(pixel as f32, row);
        let shaded = room.map(|value| value * medium.behind(mm));
        if extent.distance(mm, 0.0) > 2.0 * view.mm_per_px {
            samples.fill(shaded);
            continue;
        }
        for (index, sample) in samples.iter_mut().enumerate() {
            let x = pixel as f32 + (index as f32 + 0.5) / SAMPLES as f32 - 0.5;
            let mm = view.mm(x, row);
            let spot = Spot { mm, slope: view.slope(mm), row };
            *sample = medium.light(&spot).unwrap_or(shaded);
        }
    }
}
