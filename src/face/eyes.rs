//! How open a person's own eyes are when they are open, so that narrow eyes are not taken for
//! closed ones.
//!
//! The measure is the mean eye aspect ratio of both eyes, as the face mesh gives it. It only ever
//! argues for "open": that eyes are closed takes other evidence as well.

use std::fmt;

/// Eyes may be closed below this share of the person's own open-eye ratio: the half-way of a blink,
/// and a tenth on top for what the mesh scatters by (a picture and its mirror image differ by .027,
/// a tenth of the median of press portraits). Not fitted to data: pairs of open and closed eyes of
/// one person are wanted for that.
pub const OWN_RATIO_CLOSED_MAX: f32 = 0.6;
/// Own ratios below this say nothing: fewer than 5 % of press portraits (shut eyes among them) have
/// less than .088, and a ratio of eyes that were shut must not let shut eyes pass.
pub const OWN_RATIO_MIN: f32 = 0.08;

/// A mean eye aspect ratio of open eyes, 0 to 1.
///
/// A measure of somebody's body: `Debug` never shows the number.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct EyeRatio(f32);

impl EyeRatio {
    /// `None` unless it lies between 0 and 1.
    pub fn new(ratio: f32) -> Option<Self> {
        (0.0..=1.0).contains(&ratio).then_some(Self(ratio))
    }

    /// The mean of both eyes.
    pub fn of([left, right]: [f32; 2]) -> Option<Self> {
        Self::new(left.midpoint(right))
    }

    /// 0 to 1.
    pub const fn value(self) -> f32 {
        self.0
    }

    /// Of two pictures of one person the one with the wider eyes tells what open is: a squint in
    /// the other must not relax anything.
    pub fn wider(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        if one >= other { one } else { other }
    }

    /// Whether eyes with these ratios may be closed, going by the person whose own ratio this is.
    pub fn allows_closed(self, [left, right]: [f32; 2]) -> bool {
        self.0 < OWN_RATIO_MIN || left.midpoint(right) < OWN_RATIO_CLOSED_MAX * self.0
    }
}

impl fmt::Debug for EyeRatio {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("EyeRatio")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(ratio: f32) -> EyeRatio {
        EyeRatio::new(ratio).unwrap()
    }

    #[test]
    fn a_ratio_lies_between_0_and_1() {
        for ratio in [0.0, 0.27, 1.0] {
            assert_eq!(own(ratio).value(), ratio);
        }
        for ratio in [-0.01, 1.01, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(EyeRatio::new(ratio), None, "{ratio}");
        }
        assert_eq!(EyeRatio::of([0.25, 0.75]), Some(own(0.5)));
        assert_eq!(EyeRatio::of([f32::NAN, 0.3]), None);
    }

    #[test]
    fn the_number_is_not_printed() {
        assert_eq!(format!("{:?}", Some(own(0.25))), "Some(EyeRatio)");
    }

    #[test]
    fn the_picture_with_the_wider_eyes_counts() {
        let (narrow, wide) = (Some(own(0.1)), Some(own(0.3)));
        assert_eq!(EyeRatio::wider(narrow, wide), wide);
        assert_eq!(EyeRatio::wider(wide, narrow), wide);
        assert_eq!(EyeRatio::wider(narrow, None), narrow);
        assert_eq!(EyeRatio::wider(None, narrow), narrow);
        assert_eq!(EyeRatio::wider(None, None), None);
    }

    #[test]
    fn half_shut_is_relative_to_the_person() {
        assert!(own(0.3).allows_closed([0.12, 0.18]));
        assert!(!own(0.2).allows_closed([0.12, 0.18]));
        assert!(own(0.2).allows_closed([0.1, 0.13]));
        assert!(!own(OWN_RATIO_MIN).allows_closed([0.05, 0.05]));
    }

    proptest! {
        #[test]
        fn eyes_that_were_shut_at_the_enrolment_excuse_nothing(
            shut in 0.0..OWN_RATIO_MIN, left in 0.0f32..2.0, right in 0.0f32..2.0,
        ) {
            prop_assert!(own(shut).allows_closed([left, right]));
        }
    }
}
