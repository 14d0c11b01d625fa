//! Templates in their compact form, and the comparison of one probe with a block of them.
//!
//! A component is a 16-bit integer, scaled so that the template's largest component takes the
//! `PEAK`; the cosine of two templates is computed from these integers without further rounding,
//! so a template compared with itself is exactly 1, and the answer is the same on every processor.
//! Against the cosine of the `f32` components the error stays below 5e-5 for embeddings of 128 to
//! 512 components (`the_compact_cosine_is_that_of_the_template` measures it).
//!
//! Each component is kept as two bytes in two arrays: `256 * coarse + fine`. A search reads the
//! coarse array alone, one byte per component and contiguous, and gets from it an upper bound of
//! the cosine: with `P` the probe, `C` and `F` the coarse and the fine part of a reference `R`,
//! Cauchy and Schwarz give `P·R = P·C + P·F <= P·C + |P| |F|`, and `|F| / |R|` (about 0.006) is
//! known per reference. Only references whose bound reaches the threshold, or the worst candidate
//! so far, have their fine bytes read. That makes the search exact at half the memory traffic of
//! 16-bit templates and a quarter of `f32`.

use crate::face::template::Template;

/// The largest component of a packed template, for up to 512 components.
const PEAK: i32 = 127 * 256;

/// Components that the kernel takes at once. On x86 the compiler turns a fixed block of 32 products
/// into `pmaddwd`; 16 or 64 are slower by 30 % to 60 % (`docs/figures.md`).
const LANES: usize = 32;

/// What the roundings of an upper bound in `f32` can amount to: five operations on values up to 2.
const BOUND_ROUNDING: f32 = 1e-6;

/// The largest component for this number of components: every partial sum of products with a byte
/// must fit an `i32`.
fn peak(dimension: usize) -> i32 {
    let fits = i32::MAX as usize / 128 / dimension.max(1);
    PEAK.min(fits as i32)
}

/// Components of a template as integers.
fn quantised(template: &Template) -> impl Iterator<Item = i16> {
    let values = template.values();
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = f64::from(peak(values.len())) / f64::from(largest);
    values.iter().map(move |value| (f64::from(*value) * scale).round() as i16)
}

fn norm_squared(values: &[i16]) -> u64 {
    values.iter().map(|value| u64::from(value.unsigned_abs()).pow(2)).sum()
}

/// A template in the form that is compared with packed references.
pub struct Probe {
    /// Padded with zeros to a multiple of [`LANES`].
    values: Box<[i16]>,
    dimension: usize,
    norm_squared: u64,
    inverse_norm: f32,
}

impl Probe {
    /// Packs a template.
    pub fn new(template: &Template) -> Self {
        let dimension = template.dimension();
        let mut values: Vec<i16> = quantised(template).collect();
        let norm_squared = norm_squared(&values);
        values.resize(dimension.next_multiple_of(LANES), 0);
        Self {
            values: values.into(),
            dimension,
            norm_squared,
            inverse_norm: (1.0 / (norm_squared as f64).sqrt()) as f32,
        }
    }

    /// The number of components.
    pub fn dimension(&self) -> usize {
        self.dimension
    }
}

/// What bounds a cosine before the fine bytes are read.
#[derive(Clone, Copy)]
struct Bound {
    /// 256 divided by the norm: turns a coarse dot product into a share of the cosine.
    scale: f32,
    /// The most that the fine bytes can add, rounding included.
    slack: f32,
}

/// Templates of one dimension, contiguous.
#[derive(Clone)]
pub struct PackedTemplates {
    dimension: usize,
    /// Bytes of a row: the dimension, padded to a multiple of [`LANES`].
    stride: usize,
    coarse: Vec<i8>,
    fine: Vec<i8>,
    bounds: Vec<Bound>,
    norms_squared: Vec<u64>,
}

impl PackedTemplates {
    /// An empty block with room for `capacity` templates.
    pub fn with_capacity(dimension: usize, capacity: usize) -> Self {
        let stride = dimension.max(1).next_multiple_of(LANES);
        Self {
            dimension,
            stride,
            coarse: Vec::with_capacity(capacity * stride),
            fine: Vec::with_capacity(capacity * stride),
            bounds: Vec::with_capacity(capacity),
            norms_squared: Vec::with_capacity(capacity),
        }
    }

    /// Number of templates.
    pub fn len(&self) -> usize {
        self.bounds.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    /// Packs a template; its dimension must be the block's.
    pub fn push(&mut self, template: &Template) {
        debug_assert_eq!(template.dimension(), self.dimension, "callers sort out other dimensions");
        let values: Vec<i16> = quantised(template).collect();
        let mut fine_squared = 0_i64;
        for value in &values {
            let coarse = (i32::from(*value) + 128) >> 8;
            let fine = i32::from(*value) - (coarse << 8);
            fine_squared += i64::from(fine).pow(2);
            self.coarse.push(coarse as i8);
            self.fine.push(fine as i8);
        }
        let norm_squared = norm_squared(&values);
        let norm = (norm_squared as f64).sqrt();
        let slack = (fine_squared as f64).sqrt() / norm;
        self.bounds
            .push(Bound { scale: (256.0 / norm) as f32, slack: slack as f32 + BOUND_ROUNDING });
        self.norms_squared.push(norm_squared);
        self.coarse.resize(self.len() * self.stride, 0);
        self.fine.resize(self.len() * self.stride, 0);
    }

    /// Appends a row of another block of the same dimension.
    pub fn push_row(&mut self, other: &Self, row: usize) {
        let bytes = row * other.stride..(row + 1) * other.stride;
        self.coarse.extend_from_slice(&other.coarse[bytes.clone()]);
        self.fine.extend_from_slice(&other.fine[bytes]);
        self.bounds.push(other.bounds[row]);
        self.norms_squared.push(other.norms_squared[row]);
    }

    /// The template of a row. Packing it again gives the same row, bit for bit.
    pub(crate) fn template(&self, row: usize) -> Template {
        let start = row * self.stride;
        let bytes = start..start + self.dimension;
        let halves = self.coarse[bytes.clone()].iter().zip(&self.fine[bytes]);
        let values: Vec<f32> = halves
            .map(|(coarse, fine)| (i32::from(*coarse) * 256 + i32::from(*fine)) as f32)
            .collect();
        Template::from_embedding(&values).expect("one component of a packed template is the peak")
    }

    /// The coarse dot product of a probe of the same dimension with every row.
    pub fn coarse_dots(&self, probe: &Probe, dots: &mut Vec<i32>) {
        dots.clear();
        dots.extend(self.coarse.chunks_exact(self.stride).map(|row| dot(&probe.values, row)));
    }

    /// The most that the cosine of a row can be, from its coarse dot product.
    pub fn cosine_at_most(&self, row: usize, coarse_dot: i32, probe: &Probe) -> f32 {
        let bound = self.bounds[row];
        coarse_dot as f32 * bound.scale * probe.inverse_norm + bound.slack
    }

    /// The cosine of one row, -1 to 1.
    pub fn row_cosine(&self, row: usize, probe: &Probe) -> f32 {
        let coarse = &self.coarse[row * self.stride..(row + 1) * self.stride];
        self.cosine(row, dot(&probe.values, coarse), probe)
    }

    /// The cosine of a row, -1 to 1, from its coarse dot product and its fine bytes.
    pub fn cosine(&self, row: usize, coarse_dot: i32, probe: &Probe) -> f32 {
        let fine = &self.fine[row * self.stride..(row + 1) * self.stride];
        let product = i64::from(coarse_dot) * 256 + i64::from(dot(&probe.values, fine));
        // The square root of a square is exact in f64, which makes the cosine of a template with
        // itself exactly 1.
        let norms = (probe.norm_squared as f64 * self.norms_squared[row] as f64).sqrt();
        ((product as f64 / norms) as f32).clamp(-1.0, 1.0)
    }

    /// Memory that the rows take, in bytes.
    pub fn bytes(&self) -> usize {
        self.coarse.capacity()
            + self.fine.capacity()
            + self.bounds.capacity() * size_of::<Bound>()
            + self.norms_squared.capacity() * size_of::<u64>()
    }
}

/// The dot product of two rows whose length is a multiple of [`LANES`].
fn dot(probe: &[i16], row: &[i8]) -> i32 {
    let (probe, _) = probe.as_chunks::<LANES>();
    let (row, _) = row.as_chunks::<LANES>();
    let mut sum = 0;
    for (probe, row) in probe.iter().zip(row) {
        let mut partial = 0;
        for lane in 0..LANES {
            partial += i32::from(probe[lane]) * i32::from(row[lane]);
        }
        sum += partial;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of embeddings as models make them: components of like size.
    const TYPICAL_ERROR_MAX: f64 = 5e-5;

    fn cosine(probe: &Template, reference: &Template) -> f32 {
        let mut packed = PackedTemplates::with_capacity(reference.dimension(), 1);
        packed.push(reference);
        let probe = Probe::new(probe);
        let mut dots = Vec::new();
        packed.coarse_dots(&probe, &mut dots);
        let cosine = packed.cosine(0, dots[0], &probe);
        let bound = packed.cosine_at_most(0, dots[0], &probe);
        assert!(cosine <= bound, "{cosine} above its bound {bound}");
        assert!(bound - cosine < 0.3, "{bound} is far above {cosine}");
        cosine
    }

    fn exact_cosine(a: &Template, b: &Template) -> f64 {
        let dot = |a: &Template, b: &Template| -> f64 {
            a.values().iter().zip(b.values()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    /// The rounding error of a packed template relative to its length, at most.
    fn error_max(template: &Template) -> f64 {
        let dimension = template.dimension();
        let largest = template.values().iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        0.5 * (dimension as f64).sqrt() * f64::from(largest) / f64::from(peak(dimension))
    }

    fn template() -> impl Strategy<Value = Vec<f32>> {
        let component = prop_oneof![
            6 => -1.0_f32..1.0,
            1 => Just(0.0_f32),
            1 => -1e-3_f32..1e-3,
            1 => -1e3_f32..1e3,
        ];
        prop_oneof![Just(1_usize), Just(31), Just(33), Just(128), Just(256), Just(512), Just(700)]
            .prop_flat_map(move |dimension| prop::collection::vec(component.clone(), dimension * 2))
    }

    proptest! {
        #[test]
        fn the_error_of_the_compact_cosine_is_bounded(values in template()) {
            let (left, right) = values.split_at(values.len() / 2);
            let (Ok(a), Ok(b)) = (Template::from_embedding(left), Template::from_embedding(right))
            else { return Ok(()) };
            let difference = (f64::from(cosine(&a, &b)) - exact_cosine(&a, &b)).abs();
            prop_assert!(difference <= 2.0 * (error_max(&a) + error_max(&b)) + 1e-6);
            prop_assert_eq!(cosine(&a, &a), 1.0);
            prop_assert_eq!(cosine(&a, &b), cosine(&b, &a));
        }

        #[test]
        fn packing_what_was_unpacked_changes_nothing(values in template()) {
            let Ok(template) = Template::from_embedding(&values) else { return Ok(()) };
            let mut packed = PackedTemplates::with_capacity(values.len(), 2);
            packed.push(&template);
            packed.push(&packed.template(0));
            let (first, second) = packed.coarse.split_at(packed.stride);
            prop_assert_eq!(first, second);
            let (first, second) = packed.fine.split_at(packed.stride);
            prop_assert_eq!(first, second);
        }
    }

    #[test]
    fn the_compact_cosine_is_that_of_the_template() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut uniform = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        // The sum of four uniform values is close enough to a normal one.
        let mut template = |dimension: usize| {
            let values: Vec<f32> =
                (0..dimension).map(|_| uniform() + uniform() + uniform() + uniform()).collect();
            Template::from_embedding(&values).unwrap()
        };
        for dimension in [128, 256, 512] {
            let errors: Vec<f64> = (0..2000)
                .map(|_| {
                    let (a, b) = (template(dimension), template(dimension));
                    (f64::from(cosine(&a, &b)) - exact_cosine(&a, &b)).abs()
                })
                .collect();
            let largest = errors.iter().fold(0.0_f64, |a, b| a.max(*b));
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            println!("{dimension} components: error mean {mean:.1e}, largest {largest:.1e}");
            assert!(largest < TYPICAL_ERROR_MAX, "{dimension}: {largest}");
        }
    }

    #[test]
    fn sums_of_the_longest_templates_do_not_overflow() {
        for dimension in [512, 513, 517, 1024, 4096] {
            let ones = Template::from_embedding(&vec![1.0; dimension]).unwrap();
            let minus = Template::from_embedding(&vec![-1.0; dimension]).unwrap();
            assert_eq!(cosine(&ones, &ones), 1.0, "{dimension}");
            assert_eq!(cosine(&ones, &minus), -1.0, "{dimension}");
        }
        // Components whose fine byte is -128, the largest there is.
        let peak = peak(512) as f32;
        let mut values = vec![(peak - 128.0) / peak; 512];
        values[0] = 1.0;
        let template = Template::from_embedding(&values).unwrap();
        assert_eq!(cosine(&template, &template), 1.0);
    }
}
