//! The two-dimensional Fourier transform of a square window whose side is a power of two.
//!
//! Radix 2, in place, single precision: 256 transforms of 128 values take 0.2 ms, which does not
//! earn a dependency.

use std::f32::consts::PI;

/// A complex number: two real signals travel through one transform.
pub type Complex = (f32, f32);

/// The factors of transforms of one length.
pub struct Plan {
    side: usize,
    /// `exp(-2πi k / side)` for the first half of the circle.
    factors: Vec<Complex>,
}

impl Plan {
    /// For a `side` that is a power of two.
    pub fn new(side: usize) -> Self {
        let factor = |k: usize| {
            let angle = -2.0 * PI * k as f32 / side as f32;
            (angle.cos(), angle.sin())
        };
        Self { side, factors: (0..side / 2).map(factor).collect() }
    }

    /// Transforms the rows and the columns of `side * side` values.
    pub fn transform(&self, values: &mut [Complex]) {
        for row in values.chunks_exact_mut(self.side) {
            self.line(row);
        }
        self.transpose(values);
        for column in values.chunks_exact_mut(self.side) {
            self.line(column);
        }
        self.transpose(values);
    }

    fn transpose(&self, values: &mut [Complex]) {
        for y in 0..self.side {
            for x in y + 1..self.side {
                values.swap(y * self.side + x, x * self.side + y);
            }
        }
    }

    fn line(&self, line: &mut [Complex]) {
        let bits = self.side.trailing_zeros();
        for at in 0..self.side {
            let mirrored = at.reverse_bits() >> (usize::BITS - bits);
            if at < mirrored {
                line.swap(at, mirrored);
            }
        }
        let mut half = 1;
        while half < self.side {
            let stride = self.side / (2 * half);
            for block in line.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                let factors = self.factors.iter().step_by(stride);
                for ((a, b), w) in low.iter_mut().zip(high).zip(factors) {
                    let turned = (b.0 * w.0 - b.1 * w.1, b.0 * w.1 + b.1 * w.0);
                    *b = (a.0 - turned.0, a.1 - turned.1);
                    *a = (a.0 + turned.0, a.1 + turned.1);
                }
            }
            half *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_transform_by_definition() {
        const SIDE: usize = 8;
        let value = |at: usize| ((at * 37 % 101) as f32 / 50.0, (at * 53 % 89) as f32 / 40.0);
        let window: Vec<Complex> = (0..SIDE * SIDE).map(value).collect();
        let mut found = window.clone();
        Plan::new(SIDE).transform(&mut found);
        for v in 0..SIDE {
            for u in 0..SIDE {
                let (mut re, mut im) = (0.0, 0.0);
                for (at, value) in window.iter().enumerate() {
                    let turns = (u * (at % SIDE) + v * (at / SIDE)) as f32 / SIDE as f32;
                    let (sin, cos) = (-2.0 * PI * turns).sin_cos();
                    re += value.0 * cos - value.1 * sin;
                    im += value.0 * sin + value.1 * cos;
                }
                let (found_re, found_im) = found[v * SIDE + u];
                assert!((found_re - re).abs() < 1e-3 && (found_im - im).abs() < 1e-3, "{u} {v}");
            }
        }
    }
}
