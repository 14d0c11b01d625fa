//! What makes one drawn person: every length, tone and habit, out of one number.
//!
//! The ranges are those of adults, taken wide: an embedding network tells people apart by the
//! proportions of the face and by what lies on it, so both have to differ. Nothing here was
//! measured on anyone.

use crate::people::maths::{Random, Vec3, add, light_of, mix, mix3, scale, step};

/// A person who does not exist; the same number is the same person for ever.
#[derive(Clone, Debug)]
pub struct Person {
    /// The number that the person was drawn from.
    pub identity: u64,
    pub skull: Skull,
    pub eyes: Eyes,
    pub brows: Brows,
    pub nose: Nose,
    pub mouth: Mouth,
    pub skin: Skin,
    pub hair: Hair,
    pub beard: Beard,
    pub clothes: Clothes,
    pub glasses: Option<Glasses>,
}

/// Half widths, depths and heights of the head. y is 0 between the eyes.
#[derive(Clone, Debug)]
pub struct Skull {
    /// Half width above the ears.
    pub cranium: f32,
    pub top: f32,
    pub depth: f32,
    pub temple: f32,
    pub cheek: f32,
    pub jaw: f32,
    pub jaw_y: f32,
    pub chin: f32,
    pub chin_y: f32,
    pub chin_forward: f32,
    pub chin_cleft: f32,
    /// Exponent of the cross-section of the face: 2 is an ellipse, more is flatter.
    pub flatness: f32,
    pub brow_ridge: f32,
    pub forehead_forward: f32,
    pub cheekbone: f32,
    pub hollow: f32,
    pub fullness: f32,
    pub muzzle: f32,
    pub ear: f32,
    pub ear_out: f32,
    pub neck: f32,
    /// Everything on the right half lies lower by this and everything leans aside by that.
    pub skew: [f32; 2],
}

#[derive(Clone, Debug)]
pub struct Eyes {
    /// Half the distance between the pupils.
    pub apart: f32,
    /// Half the width of the opening, and the heights of both lids over the middle.
    pub half_width: f32,
    pub upper: f32,
    pub lower: f32,
    /// Outer corner above the inner one, degrees.
    pub slant: f32,
    /// Where the upper lid is highest, -1 inner corner to 1 outer.
    pub peak: f32,
    pub crease: f32,
    pub crease_depth: f32,
    pub depth: f32,
    pub bags: f32,
    pub lashes: f32,
    pub liner: f32,
    /// Tone of the lids: darker by this, and by colour.
    pub shadow: Vec3,
    pub iris: Vec3,
    pub iris_radius: f32,
    pub uneven: f32,
}

#[derive(Clone, Debug)]
pub struct Brows {
    pub height: f32,
    pub inner: f32,
    pub outer: f32,
    pub thick: f32,
    pub arch: f32,
    pub slope: f32,
    pub density: f32,
    pub colour: Vec3,
    pub uneven: f32,
}

#[derive(Clone, Debug)]
pub struct Nose {
    pub tip_y: f32,
    pub base_y: f32,
    pub forward: f32,
    pub root: f32,
    pub hump: f32,
    pub bridge: f32,
    pub tip: f32,
    pub wings: f32,
    pub wing_size: f32,
    pub nostril: f32,
    pub lean: f32,
    pub bulb: f32,
}

#[derive(Clone, Debug)]
pub struct Mouth {
    pub y: f32,
    pub half_width: f32,
    pub upper: f32,
    pub lower: f32,
    pub bow: f32,
    pub corners: f32,
    pub forward: f32,
    pub philtrum: f32,
    pub colour: Vec3,
    pub lean: f32,
}

#[derive(Clone, Debug)]
pub struct Skin {
    pub tone: Vec3,
    pub redness: f32,
    pub mottle: f32,
    pub freckles: f32,
    pub shine: f32,
    pub age: f32,
    pub lines: [f32; 5],
    pub rings: f32,
    /// x, y, radius, darkness.
    pub spots: Vec<[f32; 4]>,
    /// Ends and strength (darker or lighter).
    pub scar: Option<[f32; 5]>,
    pub seed: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Style {
    Bald,
    Shaved,
    Short,
    Swept,
    Fringe,
    Round,
    Long,
    Tied,
}

#[derive(Clone, Debug)]
pub struct Hair {
    pub style: Style,
    pub colour: Vec3,
    pub line: f32,
    pub recede: f32,
    pub peak: f32,
    pub thick_top: f32,
    pub thick_side: f32,
    pub length: f32,
    pub curl: f32,
    pub parting: f32,
    pub burns: f32,
    pub sweep: f32,
    pub seed: u32,
}

/// Shares of full growth: shadow of shaving everywhere, then lip, chin and cheeks.
#[derive(Clone, Debug)]
pub struct Beard {
    pub shadow: f32,
    pub lip: f32,
    pub chin: f32,
    pub cheeks: f32,
    pub colour: Vec3,
}

#[derive(Clone, Debug)]
pub struct Clothes {
    pub colour: Vec3,
    pub second: Vec3,
    pub stripes: f32,
    /// Depth of the neck line; negative is a high collar.
    pub neck_line: f32,
}

#[derive(Clone, Debug)]
pub struct Glasses {
    pub width: f32,
    pub height: f32,
    pub rim: f32,
    pub squareness: f32,
    pub colour: Vec3,
}

/// From the lightest to the darkest skin, as colours on the screen.
const TONES: [[f32; 3]; 6] = [
    [243.0, 208.0, 188.0],
    [229.0, 184.0, 157.0],
    [206.0, 155.0, 122.0],
    [170.0, 117.0, 84.0],
    [124.0, 80.0, 56.0],
    [80.0, 52.0, 40.0],
];

/// The traits that the others follow.
struct Build {
    /// 0 to 1: how much of what a beard-growing face has.
    male: f32,
    grows_beard: bool,
    age: f32,
    /// 0 lightest to 1 darkest.
    tone: f32,
    /// How full of flesh the face is, about -1 to 1.
    weight: f32,
}

impl Person {
    /// The person of a number.
    pub fn new(identity: u64) -> Self {
        let mut random = Random::new(identity);
        let r = &mut random;
        let grows_beard = r.chance(0.5);
        let male = if grows_beard { r.between(0.45, 1.0) } else { r.between(0.0, 0.5) };
        let age = 20.0 + 55.0 * r.uniform().powf(1.2);
        let build = Build { male, grows_beard, age, tone: r.uniform(), weight: r.spread() * 0.6 };
        let nose = nose(r, &build);
        let mouth = mouth(r, &build, &nose);
        let skull = skull(r, &build, &mouth);
        let eyes = eyes(r, &build);
        let hair = hair(r, &build);
        let brows = brows(r, &build, &hair);
        let beard = beard(r, &build, &hair);
        let skin = skin(r, &build);
        let mouth = Mouth { colour: lip_colour(r, &build, skin.tone), ..mouth };
        let clothes = clothes(r);
        let glasses = r.chance(0.16).then(|| glasses(r));
        Self { identity, skull, eyes, brows, nose, mouth, skin, hair, beard, clothes, glasses }
    }
}

fn nose(r: &mut Random, build: &Build) -> Nose {
    let tip_y = 35.0 + 3.0 * build.male + 4.0 * r.spread();
    Nose {
        tip_y,
        base_y: tip_y + r.between(6.0, 10.5),
        forward: 18.5 + 3.0 * build.male + 3.0 * r.spread(),
        root: r.between(2.5, 9.5),
        hump: 2.0 * r.spread(),
        bridge: r.between(6.5, 11.5),
        tip: r.between(7.5, 12.0),
        wings: 15.5 + 2.0 * build.male + 3.2 * build.tone + 2.2 * r.spread(),
        wing_size: r.between(5.0, 8.5),
        nostril: r.between(2.2, 4.2),
        lean: 1.5 * r.spread(),
        bulb: r.between(0.0, 4.5),
    }
}

fn mouth(r: &mut Random, build: &Build, nose: &Nose) -> Mouth {
    let plump = 0.6 * r.spread() + 0.9 * (build.tone - 0.5) - 0.3 * build.male;
    let thin = 1.0 - 0.35 * step(45.0, 75.0, build.age);
    Mouth {
        y: nose.base_y + r.between(14.0, 24.0),
        half_width: 25.5 + 1.5 * build.male + 3.0 * r.spread(),
        upper: ((7.4 + 2.4 * plump + 1.0 * r.spread()) * thin).max(2.5),
        lower: ((10.0 + 2.6 * plump + 1.2 * r.spread()) * thin).max(4.0),
        bow: r.between(0.3, 2.8),
        corners: 0.9 + 1.3 * r.spread(),
        forward: 3.0 + 2.0 * plump + 1.2 * r.spread(),
        philtrum: r.between(0.3, 1.6),
        colour: [0.0; 3],
        lean: 1.0 * r.spread(),
    }
}

fn skull(r: &mut Random, build: &Build, mouth: &Mouth) -> Skull {
    let (male, weight) = (build.male, build.weight);
    let cheek = 67.0 + 2.0 * male + 2.5 * weight + 3.2 * r.spread();
    let jaw = cheek * (0.80 + 0.04 * male + 0.035 * weight + 0.055 * r.spread());
    let chin_y = mouth.y + 40.0 + 5.0 * male + 4.0 * r.spread();
    Skull {
        cranium: 75.0 + 2.0 * male + 3.0 * r.spread(),
        top: 113.0 + 5.0 * r.spread(),
        depth: 94.0 + 4.0 * r.spread(),
        temple: cheek + r.between(1.0, 5.5),
        cheek,
        jaw,
        jaw_y: mouth.y + r.between(-6.0, 8.0),
        chin: 33.0 + 6.0 * male + 4.0 * r.spread(),
        chin_y,
        chin_forward: 2.5 * r.spread() + 1.5 * male,
        chin_cleft: if r.chance(0.2) { r.between(0.6, 1.8) } else { 0.0 },
        flatness: r.between(2.05, 2.6),
        brow_ridge: 1.0 + 3.5 * male + 1.0 * r.spread(),
        forehead_forward: 2.5 * r.spread() - 2.0 * male,
        cheekbone: 3.0 + 2.2 * r.spread(),
        hollow: -2.0 + 4.0 * weight + 1.8 * r.spread(),
        fullness: (3.0 * weight).max(0.0),
        muzzle: 4.0 + 2.0 * r.spread(),
        ear: 30.0 + 3.5 * r.spread(),
        ear_out: r.between(2.0, 11.0),
        neck: 48.0 + 9.0 * male + 3.0 * weight + 2.0 * r.spread(),
        skew: [0.9 * r.spread(), 1.2 * r.spread()],
    }
}

fn eyes(r: &mut Random, build: &Build) -> Eyes {
    let size = 0.10 * r.spread();
    let colours = [
        light_of(52.0, 31.0, 20.0),
        light_of(88.0, 54.0, 30.0),
        light_of(112.0, 92.0, 48.0),
        light_of(96.0, 116.0, 84.0),
        light_of(98.0, 128.0, 152.0),
        light_of(120.0, 138.0, 150.0),
    ];
    // The darker the skin, the rarer is a light eye.
    let reach = mix(6.0, 1.6, step(0.15, 0.6, build.tone));
    let shadow = if build.male < 0.45 && r.chance(0.4) {
        [0, 1, 2].map(|_| r.between(0.1, 0.7))
    } else {
        let dark = r.between(0.0, 0.45);
        [0.8 * dark, dark, 0.95 * dark]
    };
    let iris = colours[((r.uniform() * reach) as usize).min(5)];
    Eyes {
        apart: 31.5 + 0.8 * build.male + 2.3 * r.spread(),
        half_width: 14.8 * (1.0 + size) + 0.9 * r.spread(),
        upper: (5.6 * (1.0 + 2.0 * size) + 0.9 * r.spread() - 0.8 * step(45.0, 75.0, build.age))
            .max(3.2),
        lower: (4.3 * (1.0 + size) + 0.6 * r.spread()).max(2.4),
        slant: 4.0 + 4.0 * r.spread(),
        peak: r.between(-0.35, 0.3),
        crease: r.between(1.2, 6.0),
        crease_depth: r.between(0.0, 1.0),
        depth: 2.2 * r.spread(),
        bags: r.uniform() * (0.25 + 0.75 * step(25.0, 65.0, build.age)),
        lashes: r.between(0.35, 0.8) + if build.male < 0.4 { 0.3 } else { 0.0 },
        liner: if build.male < 0.4 && r.chance(0.5) { r.between(0.2, 1.0) } else { 0.0 },
        shadow,
        iris,
        iris_radius: 5.9 + 0.25 * r.spread(),
        uneven: 0.7 * r.spread(),
    }
}

fn brows(r: &mut Random, build: &Build, hair: &Hair) -> Brows {
    let dark = mix3(hair.colour, light_of(30.0, 22.0, 18.0), r.between(0.1, 0.75));
    Brows {
        height: 21.0 - 2.5 * build.male + 2.8 * r.spread(),
        inner: r.between(7.5, 16.5),
        outer: r.between(44.0, 55.0),
        thick: (3.0 + 1.9 * build.male + 1.6 * r.spread()).max(1.0),
        arch: 2.8 - 1.6 * build.male + 1.7 * r.spread(),
        slope: 2.2 * r.spread(),
        density: r.between(0.4, 1.0),
        colour: dark,
        uneven: 0.9 * r.spread(),
    }
}

fn hair_colour(r: &mut Random, build: &Build) -> Vec3 {
    let colours = [
        light_of(22.0, 18.0, 17.0),
        light_of(40.0, 28.0, 22.0),
        light_of(68.0, 46.0, 32.0),
        light_of(104.0, 70.0, 44.0),
        light_of(150.0, 112.0, 68.0),
        light_of(196.0, 162.0, 108.0),
        light_of(138.0, 66.0, 36.0),
    ];
    let reach = mix(7.0, 2.2, step(0.15, 0.55, build.tone));
    let own = colours[((r.uniform() * reach) as usize).min(6)];
    let grey = step(38.0, 78.0, build.age + 9.0 * r.spread());
    mix3(own, light_of(176.0, 174.0, 172.0), grey * r.between(0.5, 1.0))
}

fn hair(r: &mut Random, build: &Build) -> Hair {
    use Style::{Bald, Fringe, Long, Round, Shaved, Short, Swept, Tied};
    let male = [Bald, Shaved, Short, Short, Swept, Swept, Fringe, Round, Short, Long];
    let female = [Long, Long, Long, Fringe, Tied, Tied, Round, Short, Long, Swept];
    let style = if build.grows_beard { male } else { female }[r.below(10)];
    let old = step(30.0, 70.0, build.age) * build.male;
    Hair {
        style,
        colour: hair_colour(r, build),
        line: 58.0 + 5.0 * r.spread() + 10.0 * old,
        recede: r.between(0.0, 10.0) + 22.0 * old * r.uniform(),
        peak: r.between(-2.0, 5.0),
        thick_top: r.between(9.0, 26.0),
        thick_side: r.between(4.0, 13.0),
        length: r.between(70.0, 190.0),
        curl: if r.chance(0.35) { r.between(0.3, 1.0) } else { r.between(0.0, 0.2) },
        parting: if r.chance(0.3) { 0.0 } else { r.between(-28.0, 28.0) },
        burns: r.between(-5.0, 28.0),
        sweep: r.between(-1.0, 1.0),
        seed: r.bits() as u32,
    }
}

fn beard(r: &mut Random, build: &Build, hair: &Hair) -> Beard {
    let colour = mix3(hair.colour, light_of(34.0, 24.0, 20.0), r.between(0.0, 0.6));
    if !build.grows_beard {
        return Beard { shadow: 0.0, lip: 0.0, chin: 0.0, cheeks: 0.0, colour };
    }
    let shadow = r.between(0.05, 0.55);
    let full = r.between(0.55, 1.0);
    let (lip, chin, cheeks) = match r.below(8) {
        0 => (full, full, full),
        1 => (full, full, 0.0),
        2 => (full, 0.0, 0.0),
        3 => (0.4 * full, 0.45 * full, 0.4 * full),
        _ => (0.0, 0.0, 0.0),
    };
    Beard { shadow, lip, chin, cheeks, colour }
}

fn skin(r: &mut Random, build: &Build) -> Skin {
    let place = build.tone * 4.999;
    let (low, share) = (place as usize, place.fract());
    let screen = mix3(TONES[low], TONES[low + 1], share);
    let hue = [2.0 * r.spread(), 3.0 * r.spread(), 7.0 * r.spread()];
    let screen = add(screen, scale(hue, screen[0] / 230.0));
    let spots = (0..r.below(7)).map(|_| {
        [
            r.between(-58.0, 58.0),
            r.between(-50.0, 100.0),
            0.8 + 1.8 * r.uniform() * r.uniform(),
            r.between(0.35, 0.85),
        ]
    });
    let spots = spots.collect();
    let old = step(28.0, 75.0, build.age);
    let line = |r: &mut Random| old * r.between(0.2, 1.0);
    let scar = r.chance(0.12).then(|| {
        let (x, y) = (r.between(-50.0, 50.0), r.between(-45.0, 90.0));
        [x, y, x + r.between(-14.0, 14.0), y + r.between(-16.0, 16.0), r.between(-0.25, 0.3)]
    });
    Skin {
        tone: light_of(screen[0], screen[1], screen[2]),
        redness: r.between(0.1, 1.3),
        mottle: r.between(0.5, 1.6),
        freckles: if r.chance(0.25) { r.between(0.25, 1.0) * (1.0 - build.tone) } else { 0.0 },
        shine: r.between(0.25, 1.0),
        age: build.age,
        lines: [line(r), line(r), line(r), 0.12 + 0.8 * line(r), line(r)],
        rings: r.between(0.0, 0.9) + 0.3 * old,
        spots,
        scar,
        seed: r.bits() as u32,
    }
}

fn lip_colour(r: &mut Random, build: &Build, tone: Vec3) -> Vec3 {
    let natural = [tone[0] * 0.74, tone[1] * 0.46, tone[2] * 0.50];
    if build.male < 0.45 && r.chance(0.45) {
        let paint = [
            light_of(176.0, 36.0, 52.0),
            light_of(150.0, 58.0, 70.0),
            light_of(198.0, 96.0, 104.0),
            light_of(112.0, 32.0, 48.0),
        ][r.below(4)];
        return mix3(natural, paint, r.between(0.4, 0.85));
    }
    let pale = r.between(0.0, 0.5);
    mix3(natural, scale(tone, 0.75), pale)
}

fn clothes(r: &mut Random) -> Clothes {
    let colour = |r: &mut Random| {
        let dark = r.between(0.15, 1.0);
        [0, 1, 2].map(|_| (dark * r.between(0.35, 1.0)).powi(2) * 0.75)
    };
    Clothes {
        colour: colour(r),
        second: colour(r),
        stripes: if r.chance(0.3) { r.between(6.0, 22.0) } else { 0.0 },
        neck_line: r.between(-14.0, 42.0),
    }
}

fn glasses(r: &mut Random) -> Glasses {
    let colour =
        if r.chance(0.7) { light_of(28.0, 26.0, 28.0) } else { light_of(120.0, 84.0, 50.0) };
    Glasses {
        width: r.between(22.0, 27.5),
        height: r.between(14.0, 20.0),
        rim: r.between(0.9, 2.6),
        squareness: r.between(2.0, 4.5),
        colour,
    }
}
