//! Vectors, soft steps and noise of the renderer. Lengths are millimetres: x to the right of the
//! picture, y down, z towards the camera.

use facelatch::eval::random::SplitMix;

/// A point or a direction.
pub type Vec3 = [f32; 3];

pub fn add(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub fn sub(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub fn scale(a: Vec3, factor: f32) -> Vec3 {
    a.map(|value| value * factor)
}

/// Component by component, as colours are.
pub fn times(a: Vec3, b: Vec3) -> Vec3 {
    [a[0] * b[0], a[1] * b[1], a[2] * b[2]]
}

pub fn dot(a: Vec3, b: Vec3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub fn cross(a: Vec3, b: Vec3) -> Vec3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// The direction of `a`; towards the camera where `a` has none.
pub fn unit(a: Vec3) -> Vec3 {
    let length = dot(a, a).sqrt();
    if length > 1e-9 { scale(a, 1.0 / length) } else { [0.0, 0.0, 1.0] }
}

pub fn mix(a: f32, b: f32, share: f32) -> f32 {
    a + (b - a) * share
}

pub fn mix3(a: Vec3, b: Vec3, share: f32) -> Vec3 {
    [mix(a[0], b[0], share), mix(a[1], b[1], share), mix(a[2], b[2], share)]
}

/// 0 below `from`, 1 above `to`, smooth between; falls when `from` is greater than `to`.
pub fn step(from: f32, to: f32, value: f32) -> f32 {
    let t = ((value - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A hill of height 1 at 0, down to 1/e where `value` is `width`.
pub fn hill(value: f32, width: f32) -> f32 {
    (-(value / width) * (value / width)).exp()
}

/// [`hill`] in two directions.
pub fn hill2(x: f32, width: f32, y: f32, height: f32) -> f32 {
    let (x, y) = (x / width, y / height);
    let far = x * x + y * y;
    if far > 16.0 { 0.0 } else { (-far).exp() }
}

/// The greater of two heights, with the edge between them rounded over `softness`.
pub fn soft_max(a: f32, b: f32, softness: f32) -> f32 {
    let t = (0.5 + 0.5 * (a - b) / softness).clamp(0.0, 1.0);
    mix(b, a, t) + softness * t * (1.0 - t)
}

/// A rotation as its rows.
#[derive(Clone, Copy, Debug)]
pub struct Rotation([Vec3; 3]);

impl Rotation {
    /// Turned to the right side of the picture by `yaw`, looking down by `pitch`, then leaning to
    /// the right (clockwise on the screen) by `roll`; degrees.
    pub fn of_head(yaw: f32, pitch: f32, roll: f32) -> Self {
        let (sy, cy) = yaw.to_radians().sin_cos();
        let (sp, cp) = pitch.to_radians().sin_cos();
        let (sr, cr) = roll.to_radians().sin_cos();
        let turn = Self([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]]);
        let nod = Self([[1.0, 0.0, 0.0], [0.0, cp, sp], [0.0, -sp, cp]]);
        let lean = Self([[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]]);
        lean.after(turn.after(nod))
    }

    fn after(self, first: Self) -> Self {
        let column = |index: usize| [first.0[0][index], first.0[1][index], first.0[2][index]];
        let columns = [0, 1, 2].map(|index| self.turn(column(index)));
        Self([0, 1, 2].map(|row| [columns[0][row], columns[1][row], columns[2][row]]))
    }

    pub fn turn(&self, a: Vec3) -> Vec3 {
        [dot(self.0[0], a), dot(self.0[1], a), dot(self.0[2], a)]
    }
}

/// Random numbers of the drawings.
pub struct Random(SplitMix);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds lie far apart in the sequence.
        Self(SplitMix::new(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0x5851_F42D_4C95_7F2D))
    }

    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// 0 to 1, which is left out.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    pub fn between(&mut self, least: f32, most: f32) -> f32 {
        mix(least, most, self.uniform())
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    pub fn chance(&mut self, share: f32) -> bool {
        self.uniform() < share
    }

    /// Mean 0, deviation 1.44, never beyond 2.5. Uniform on purpose: a bell would make most people
    /// alike, and a few monsters.
    pub fn spread(&mut self) -> f32 {
        (self.uniform() - 0.5) * 5.0
    }
}

/// -1 to 1 for a lattice point.
fn lattice(x: i32, y: i32, seed: u32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x8DA6_B343)
        ^ (y as u32).wrapping_mul(0xD816_3841)
        ^ seed.wrapping_mul(0xCB1A_B31F);
    h = (h ^ (h >> 16)).wrapping_mul(0x7FEB_352D);
    h = (h ^ (h >> 15)).wrapping_mul(0x846C_A68B);
    ((h ^ (h >> 16)) >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}

/// Smooth noise, -1 to 1, with bumps about 1 wide.
pub fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let smooth = |share: f32| share * share * (3.0 - 2.0 * share);
    let (along, down) = (smooth(x - left), smooth(y - top));
    let (column, row) = (left as i32, top as i32);
    let across = |row: i32| mix(lattice(column, row, seed), lattice(column + 1, row, seed), along);
    mix(across(row), across(row + 1), down)
}

/// Noise of several sizes, each half as wide and half as strong as the one before.
pub fn clouds(x: f32, y: f32, octaves: u32, seed: u32) -> f32 {
    let (mut sum, mut size, mut weight) = (0.0, 1.0, 0.5);
    for octave in 0..octaves {
        sum += weight * noise(x * size, y * size, seed.wrapping_add(octave * 101));
        size *= 2.03;
        weight *= 0.5;
    }
    sum
}

/// A value on the screen's scale (sRGB, 0 to 255) as light.
pub fn light_of(r: f32, g: f32, b: f32) -> Vec3 {
    [r, g, b].map(|value| (value / 255.0).powf(2.2))
}
