//! The pictures that are committed in `tests/pictures/people`, and what each of them shows. Made
//! again by `cargo run --example people -- fixtures tests/pictures/people`.

use crate::people::scene::CAST;
use crate::people::scene::varied;
use crate::people::traits::Person;
use crate::people::{Background, Hand, Mask, Picture, Shot, Truth, render, truth_of};

/// Quality of the JPEG files, of 100.
pub const JPEG_QUALITY: u8 = 90;
/// The people of the comparisons: see [`CAST`]. Shots of each; the first is frontal.
pub const SHOTS: u64 = 4;
const PORTRAIT_SIDE: usize = 256;
/// Pictures for the liveness check, whose rules want a face of 150 pixels.
const SCENE_SIDE: usize = 448;
const SCENE_FACE_PX: f32 = 190.0;
/// Who is in the scenes.
const ACTOR: u64 = 180;
const SECOND_ACTOR: u64 = 509;

/// One committed picture.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Of the file, without `.jpg`.
    pub name: String,
    side: usize,
    people: Vec<(u64, Shot)>,
}

impl Fixture {
    /// Draws it.
    pub fn draw(&self) -> (Picture, Vec<Truth>) {
        let people: Vec<(Person, Shot)> =
            self.people.iter().map(|(number, shot)| (Person::new(*number), *shot)).collect();
        let shown: Vec<(&Person, Shot)> = people.iter().map(|(one, shot)| (one, *shot)).collect();
        render(self.side, self.side, &shown)
    }

    /// Where its faces are, without drawing it.
    pub fn truths(&self) -> Vec<Truth> {
        let one = |(number, shot): &(u64, Shot)| truth_of(self.side, &Person::new(*number), shot);
        self.people.iter().map(one).collect()
    }
}

/// All of them.
pub fn all() -> Vec<Fixture> {
    portraits().into_iter().chain(scenes()).collect()
}

/// Four shots of each of the cast.
pub fn portraits() -> Vec<Fixture> {
    CAST.iter().flat_map(|person| (0..SHOTS).map(move |number| portrait(*person, number))).collect()
}

/// One shot of a person.
pub fn portrait(person: u64, number: u64) -> Fixture {
    let shot = varied(&Person::new(person), number, PORTRAIT_SIDE as f32);
    Fixture {
        name: format!("person{person}-{number}"),
        side: PORTRAIT_SIDE,
        people: vec![(person, shot)],
    }
}

/// One picture for each thing that the liveness check may say about a picture.
pub fn scenes() -> Vec<Fixture> {
    let face_px = SCENE_FACE_PX;
    let plain = Shot { face_px, background: Background::Room(5), ..Shot::default() };
    let one = |name: &str, shot: Shot| Fixture {
        name: format!("scene-{name}"),
        side: SCENE_SIDE,
        people: vec![(ACTOR, shot)],
    };
    let aside = |x: f32| Shot { centre: [x, 0.5], face_px: 130.0, ..plain };
    let side = SCENE_SIDE as f32;
    vec![
        one("open", plain),
        one("eyes-closed", Shot { eyes_closed: 1.0, ..plain }),
        one("mask", Shot { mask: Some(Mask::Surgical), ..plain }),
        one("dark-mask", Shot { mask: Some(Mask::Dark), ..plain }),
        one("sunglasses", Shot { sunglasses: true, ..plain }),
        one("hand-over-mouth", Shot { hand: Some(Hand::OverMouth), ..plain }),
        one("hand-over-eyes", Shot { hand: Some(Hand::OverEyes), ..plain }),
        one("turned", Shot { yaw_deg: 45.0, ..plain }),
        one("far", Shot { face_px: 70.0, ..plain }),
        one("near", Shot { face_px: 0.80 * side, centre: [0.5, 0.53], ..plain }),
        one("at-the-border", Shot { centre: [0.5 * face_px / side + 0.009, 0.5], ..plain }),
        one("cut", Shot { centre: [0.35 * face_px / side, 0.5], ..plain }),
        Fixture {
            people: vec![(ACTOR, aside(0.28)), (SECOND_ACTOR, aside(0.73))],
            ..one("two", plain)
        },
        Fixture { people: Vec::new(), ..one("nobody", plain) },
    ]
}
