//! Numbers that a seed decides: the draws of parameters, and noise that depends on a place.
//!
//! `SplitMix64` (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014):
//! a dozen lines that stay the same whatever crate is updated, so that a seed names the same
//! picture for ever.

/// A stream of numbers.
pub struct Draw(u64);

impl Draw {
    /// The stream of a seed and what it is used for; other words give another stream.
    pub fn new(seed: u64, words: &[&str]) -> Self {
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = |hash, word: &&str| word.as_bytes().iter().chain(&[0]).fold(hash, fold);
        Self(mixed(seed) ^ words.iter().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    /// A number of 64 bits, for instance the seed of a noise.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// 0 to 1, below 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Evenly between the two ends.
    pub fn within(&mut self, [low, high]: [f32; 2]) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Evenly on a logarithmic scale between two positive ends.
    pub fn scaled(&mut self, [low, high]: [f32; 2]) -> f32 {
        low * (high / low).powf(self.unit())
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// One of several, all equally likely.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.bits() % choices.len() as u64) as usize]
    }

    /// A sign.
    pub fn sign(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    /// Nearly normal with variance 1: four uniform numbers (Irwin-Hall), cut off at 3.5. A sensor's
    /// noise has no use for the tails.
    pub fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        (sum as f32 / 65_536.0 - 2.0) * 3f32.sqrt()
    }
}

fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Smooth noise in the plane, -1 to 1, with one hill or valley per unit: the texture of paper,
/// walls and skin.
pub fn noise(seed: u64, x: f32, y: f32) -> f32 {
    let (left, top) = (floor(x), floor(y));
    let eased = |t: f32| t * t * (3.0 - 2.0 * t);
    let (dx, dy) = (eased(x - left as f32), eased(y - top as f32));
    let above = mix(corner(seed, left, top), corner(seed, left + 1, top), dx);
    let below = mix(corner(seed, left, top + 1), corner(seed, left + 1, top + 1), dx);
    mix(above, below, dy)
}

fn corner(seed: u64, x: i32, y: i32) -> f32 {
    let place = (u64::from(x as u32) << 32) | u64::from(y as u32);
    let hash = (place ^ seed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// The cosine of whole turns, within 2e-4: gratings need millions of them.
pub fn wave(turns: f32) -> f32 {
    let quarter = ((turns - floor(turns + 0.5) as f32).abs() - 0.25) * std::f32::consts::TAU;
    let square = quarter * quarter;
    quarter * (square * (1.0 / 6.0 - square * (1.0 / 120.0 - square / 5040.0)) - 1.0)
}

/// The greatest whole number below; without SSE 4.1 `f32::floor` is a call, and these loops are hot.
pub fn floor(value: f32) -> i32 {
    let cut = value as i32;
    cut - i32::from(cut as f32 > value)
}

/// Length of a vector; `f32::hypot` guards against an overflow that millimetres do not know.
pub fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// From `a` to `b` as `t` goes from 0 to 1.
pub fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// 0 below `low`, 1 above `high`, smooth between.
pub fn step(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
