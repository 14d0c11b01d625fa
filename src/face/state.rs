//! What the face state network says: eyes closed, face covered, where it looks.
//!
//! The network is the project's own (`models/train`). Its output `state` holds six numbers: logits
//! of "image-left eye closed", "image-right eye closed", "eye region covered", "nose and mouth
//! covered", then yaw and pitch in units of 45 degrees.

use crate::face::pose::Pose;

/// The unit of the two angles in degrees.
const ANGLE_UNIT_DEG: f32 = 45.0;

/// The network's answer about one face; every number is finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaceState {
    /// Probability that the eye is closed, image-left eye first.
    pub eye_closed: [f32; 2],
    /// Probability that eyes or brows are behind sunglasses, a hand or an object.
    pub eyes_covered: f32,
    /// Probability that nose or mouth are behind a mask, scarf, hand or object.
    pub mouth_covered: f32,
    /// Where the face looks.
    pub pose: Pose,
}

impl FaceState {
    /// Reads the output; `None` when it is not six finite numbers.
    pub fn decode(state: &[f32]) -> Option<Self> {
        let state: [f32; 6] = state.try_into().ok()?;
        if !state.iter().all(|value| value.is_finite()) {
            return None;
        }
        let [left, right, eyes, mouth, yaw, pitch] = state;
        Some(Self {
            eye_closed: [probability(left), probability(right)],
            eyes_covered: probability(eyes),
            mouth_covered: probability(mouth),
            pose: Pose { yaw_deg: yaw * ANGLE_UNIT_DEG, pitch_deg: pitch * ANGLE_UNIT_DEG },
        })
    }

    /// Probability that the more open eye is open: both must be closed to count.
    pub fn open(&self) -> f32 {
        1.0 - self.eye_closed[0].min(self.eye_closed[1])
    }

    /// Probability that nothing hides the face.
    pub fn uncovered(&self) -> f32 {
        1.0 - self.eyes_covered.max(self.mouth_covered)
    }
}

fn probability(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_numbers_become_probabilities_and_degrees() {
        let state = FaceState::decode(&[0.0, 3f32.ln(), -100.0, 100.0, 1.0, -0.5]).unwrap();
        assert!((state.eye_closed[0] - 0.5).abs() < 1e-6);
        assert!((state.eye_closed[1] - 0.75).abs() < 1e-6);
        assert!(state.eyes_covered < 1e-6 && state.mouth_covered > 0.999);
        assert_eq!((state.pose.yaw_deg, state.pose.pitch_deg), (45.0, -22.5));
        assert!((state.open() - 0.5).abs() < 1e-6, "the more open eye counts");
        assert!(state.uncovered() < 1e-3, "either region covered is covered");
    }

    #[test]
    fn anything_else_is_no_answer() {
        for state in [&[][..], &[0.0; 5], &[0.0; 7], &[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0]] {
            assert_eq!(FaceState::decode(state), None, "{state:?}");
        }
    }
}
