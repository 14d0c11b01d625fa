//! The rotation that takes one set of points nearest to another one.
//!
//! With both sets centred, the least squared error over rotation and scale is reached by the
//! orthogonal factor of the polar decomposition of their covariance (Schönemann's solution of the
//! orthogonal Procrustes problem). Higham's scaled Newton iteration finds that factor with cross
//! products alone, so three dimensions need no singular value decomposition.

/// A 3x3 matrix by rows.
pub type Matrix = [[f64; 3]; 3];
/// A point of the first set, and the one of the second that belongs to it.
pub type Pair = ([f64; 3], [f64; 3]);

/// Least determinant of the covariance, which is scaled to a norm of 1, that names a rotation.
/// Meshes of faces have .04 and above; flat sets have 0, mirror images a negative one.
const DETERMINANT_MIN: f64 = 1e-4;
/// Newton steps at most. The number of right digits doubles with each: meshes need 6.
const STEPS_MAX: usize = 30;
/// The iteration ends when no element moves by more than this.
const STEP_MIN: f64 = 1e-12;

/// How one set of points becomes another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// From the axes of the first set to those of the second.
    pub rotation: Matrix,
    /// Share of the second set's squared spread that rotation and scale leave unexplained, 0 to 1.
    pub unexplained: f64,
}

/// The rotation, with a scale and a shift, that takes the first point of every pair nearest to the
/// second. `None` when the points are flat, coincide, are mirror images of one another or
/// have numbers that are not finite.
pub fn fit(pairs: &[Pair]) -> Option<Fit> {
    let (from_mean, to_mean) = (mean(pairs, |pair| pair.0), mean(pairs, |pair| pair.1));
    let mut covariance = [[0.0; 3]; 3];
    let (mut from_spread, mut to_spread) = (0.0, 0.0);
    for (from, to) in pairs {
        for row in 0..3 {
            let target = to[row] - to_mean[row];
            for column in 0..3 {
                covariance[row][column] += target * (from[column] - from_mean[column]);
            }
            from_spread += (from[row] - from_mean[row]).powi(2);
            to_spread += target * target;
        }
    }
    let rotation = nearest_rotation(covariance)?;
    let explained = inner(&rotation, &covariance).powi(2) / (from_spread * to_spread);
    Some(Fit { rotation, unexplained: (1.0 - explained).clamp(0.0, 1.0) })
}

fn mean(pairs: &[Pair], side: fn(&Pair) -> [f64; 3]) -> [f64; 3] {
    let sum = |axis: usize| pairs.iter().map(|pair| side(pair)[axis]).sum::<f64>();
    std::array::from_fn(|axis| sum(axis) / pairs.len() as f64)
}

/// The rotation in the polar decomposition of a matrix with a positive determinant.
fn nearest_rotation(matrix: Matrix) -> Option<Matrix> {
    let norm = inner(&matrix, &matrix).sqrt();
    let mut found = matrix.map(|row| row.map(|value| value / norm));
    let determinant = dot(found[0], cross(found[1], found[2]));
    // A norm of 0 gives numbers that are not finite, too.
    if determinant.is_nan() || determinant < DETERMINANT_MIN {
        return None;
    }
    for _ in 0..STEPS_MAX {
        let inverse = inverse_transposed(&found);
        let gain = (inner(&inverse, &inverse) / inner(&found, &found)).powf(0.25);
        let next: Matrix = std::array::from_fn(|row| {
            std::array::from_fn(|column| {
                f64::midpoint(gain * found[row][column], inverse[row][column] / gain)
            })
        });
        let step = (0..9).map(|i| (next[i / 3][i % 3] - found[i / 3][i % 3]).abs());
        let step = step.fold(0.0, f64::max);
        found = next;
        if step <= STEP_MIN {
            return Some(found);
        }
    }
    None
}

fn inverse_transposed(matrix: &Matrix) -> Matrix {
    let [a, b, c] = *matrix;
    let determinant = dot(a, cross(b, c));
    [cross(b, c), cross(c, a), cross(a, b)].map(|row| row.map(|value| value / determinant))
}

/// Sum of the products of equal places.
fn inner(a: &Matrix, b: &Matrix) -> f64 {
    a.iter().zip(b).map(|(a, b)| dot(*a, *b)).sum()
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CORNERS: [[f64; 3]; 4] =
        [[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]];

    fn paired(to: impl Fn([f64; 3]) -> [f64; 3]) -> Vec<([f64; 3], [f64; 3])> {
        CORNERS.iter().map(|&from| (from, to(from))).collect()
    }

    #[test]
    fn a_quarter_turn_is_found() {
        let found = fit(&paired(|[x, y, z]| [7.0 - 5.0 * y, 5.0 * x, 5.0 * z - 1.0])).unwrap();
        let expected = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]];
        for (found, expected) in found.rotation.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
        }
        assert!(found.unexplained < 1e-12);
    }

    #[test]
    fn what_no_rotation_reaches_is_none() {
        assert_eq!(fit(&[]), None);
        assert_eq!(fit(&paired(|_| [1.0; 3])), None, "one point");
        assert_eq!(fit(&paired(|[x, y, _]| [x, y, 0.0])), None, "flat");
        assert_eq!(fit(&paired(|[x, y, z]| [-x, y, z])), None, "a mirror image");
        assert_eq!(fit(&paired(|[x, y, _]| [x, y, f64::NAN])), None);
        assert_eq!(fit(&paired(|[x, y, z]| [x, y, z * f64::INFINITY])), None);
    }

    #[test]
    fn what_a_rotation_explains_badly_says_so() {
        let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        let tips = (0..6).map(|i| std::array::from_fn(|axis| f64::from(i / 2 == axis) * sign(i)));
        let stretched: Vec<_> = tips.map(|[x, y, z]| ([x, y, z], [3.0 * x, y, z])).collect();
        let found = fit(&stretched).unwrap();
        // 1 - (3 + 1 + 1)^2 / (3 * (9 + 1 + 1)).
        assert!((found.unexplained - 8.0 / 33.0).abs() < 1e-9, "{found:?}");
    }

    proptest! {
        #[test]
        fn no_turn_near_the_fit_is_better(
            points in proptest::collection::vec(prop::array::uniform3(-1.0f64..1.0), 8..20),
            axis in 0usize..3, angle in -0.3f64..0.3,
        ) {
            let reference = |i: usize| {
                let t = i as f64;
                [(t * 1.7).sin(), (t * 2.9).cos(), (t * 4.3).sin()]
            };
            let pairs: Vec<_> = points.iter().enumerate().map(|(i, &p)| (reference(i), p)).collect();
            let Some(found) = fit(&pairs) else { return Ok(()) };
            let (sin, cos) = angle.sin_cos();
            let mut turn = [[0.0; 3]; 3];
            let (next, last) = ((axis + 1) % 3, (axis + 2) % 3);
            turn[axis][axis] = 1.0;
            (turn[next][next], turn[last][last]) = (cos, cos);
            (turn[next][last], turn[last][next]) = (-sin, sin);
            let product = |a: &Matrix, b: &Matrix| -> Matrix {
                std::array::from_fn(|r| {
                    std::array::from_fn(|c| (0..3).map(|k| a[r][k] * b[k][c]).sum())
                })
            };
            let error = |rotation: &Matrix| -> f64 {
                let (from_mean, to_mean) = (mean(&pairs, |pair| pair.0), mean(&pairs, |pair| pair.1));
                let trace: f64 = pairs.iter().map(|(from, to)| {
                    let centred: [f64; 3] = std::array::from_fn(|i| from[i] - from_mean[i]);
                    (0..3).map(|i| (to[i] - to_mean[i]) * dot(rotation[i], centred)).sum::<f64>()
                }).sum();
                -trace
            };
            let turned = product(&turn, &found.rotation);
            prop_assert!(error(&turned) >= error(&found.rotation) - 1e-9);
            prop_assert!((0.0..=1.0).contains(&found.unexplained));
        }
    }
}
