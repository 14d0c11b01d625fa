//! Whether the frames of one track agree that a face is live.
//!
//! One frame proves little: a detector that passes an attack in one frame of ten would open within
//! a second at ten frames per second. So several frames must answer, and nearly all of the latest
//! ones must say "live". Frames that allow no answer (a blink, a turned head) count for neither
//! side: they delay, and never decide.

use crate::face::liveness::Cue;
use crate::face::liveness::Finding;

/// Answers that are remembered; older ones no longer count, so who comes nearer is judged by how
/// the face looks now.
pub const ANSWERS_MAX: u32 = 10;
/// Live answers that are asked for at least.
pub const LIVE_FRAMES_MIN: u32 = 3;
/// Share of live answers among those remembered that is asked for. One attack answer must be
/// outweighed by four live ones. An attack that passes a third of the frames comes to three live
/// answers at first in 4 % of its tries and to eight of ten in 0.3 %. Tries are not limited, so these
/// chances add up.
pub const LIVE_SHARE_MIN: f32 = 0.8;
/// Attack answers in a row before an attack is reported.
pub const SPOOF_FRAMES_MIN: u32 = 3;

/// The latest answers of one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// One bit for each answer, 1 for live, the latest lowest.
    answers: u32,
    count: u32,
}

impl Agreement {
    /// Takes the answer of a frame.
    pub fn see(&mut self, live: bool) {
        self.answers = (self.answers << 1 | u32::from(live)) & ((1 << ANSWERS_MAX) - 1);
        self.count = (self.count + 1).min(ANSWERS_MAX);
    }

    /// Whether enough frames answered "live", and nearly no other.
    pub fn is_live(self) -> bool {
        self.answers.count_ones() >= LIVE_FRAMES_MIN && self.share() >= LIVE_SHARE_MIN
    }

    /// As [`Agreement::is_live`], with every answer that is remembered: for somebody whose face was
    /// shown by an attack a short time ago.
    pub fn is_live_after_attack(self) -> bool {
        self.count >= ANSWERS_MAX && self.is_live()
    }

    /// Whether the latest frames all answered "attack".
    pub fn is_attack(self) -> bool {
        self.count >= SPOOF_FRAMES_MIN && self.answers.trailing_zeros() >= SPOOF_FRAMES_MIN
    }

    /// The share of live answers as a finding; `None` before there are enough of them.
    pub fn finding(self) -> Option<Finding> {
        (self.count >= LIVE_FRAMES_MIN)
            .then(|| Finding::new(Cue::Agreement, self.share(), LIVE_SHARE_MIN))
    }

    fn share(self) -> f32 {
        self.answers.count_ones() as f32 / self.count.max(1) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(answers: &str) -> Agreement {
        let mut agreement = Agreement::default();
        answers.chars().for_each(|answer| agreement.see(answer == 'L'));
        agreement
    }

    #[test]
    fn three_live_frames_agree_and_one_attack_needs_four_live_ones() {
        for (answers, live, attack) in [
            ("", false, false),
            ("L", false, false),
            ("LL", false, false),
            ("LLL", true, false),
            ("SLLL", false, false),
            ("SLLLL", true, false),
            ("SSLLLLLLLL", true, false),
            ("SSLLLLLLL", false, false),
            ("LLLLLLLLLLSS", true, false),
            ("LLLLLLLLLLSSS", false, true),
            ("SSS", false, true),
            ("SS", false, false),
            ("SLS", false, false),
            ("SSSL", false, false),
        ] {
            let agreement = after(answers);
            assert_eq!((agreement.is_live(), agreement.is_attack()), (live, attack), "{answers}");
        }
        assert!(
            !after("LLLLLLLLL").is_live_after_attack()
                && after("LLLLLLLLLL").is_live_after_attack()
        );
        assert!(!after("LLLSLLSLLS").is_live_after_attack());
    }

    #[test]
    fn the_finding_is_the_share_once_there_are_enough_answers() {
        assert_eq!(after("LL").finding(), None);
        let finding = after("SLLLL").finding().unwrap();
        assert_eq!((finding.score, finding.pass), (0.8, true));
        assert!(!after("SSL").finding().unwrap().pass);
        assert!(after(&"S".repeat(50)).is_attack());
        let late = format!("{}{}", "S".repeat(50), "L".repeat(8));
        assert!(after(&late).is_live(), "old answers no longer count");
    }
}
