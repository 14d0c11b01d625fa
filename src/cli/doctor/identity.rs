//! What `camera.false_accept_per_attempt` means: in openings a year, and whether the model can
//! promise it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access::identity::IdentityOptions;
use crate::access::identity::IdentityRules;
use crate::cli::doctor::Check;
use crate::config::CameraConfig;
use crate::inference::EmbeddingSpec;

/// Visits of strangers a day that figures are told for, where nobody says how many there are: a
/// house door in a street where people deliver, advertise and ask.
pub const VISITS_PER_DAY: u32 = 20;
const DAYS_PER_YEAR: f64 = 365.25;

/// People per collection, by name.
pub type People = BTreeMap<String, usize>;

/// One row per camera.
pub fn checks(
    cameras: &[CameraConfig],
    embedding: &EmbeddingSpec,
    people: &People,
    visits_per_day: u32,
) -> Vec<Check> {
    let score_map = Arc::new(embedding.score_map.clone());
    let check = |camera: &CameraConfig| {
        let enrolled = people.get(camera.collection.as_str()).copied().unwrap_or_default();
        let options = IdentityOptions {
            false_accept_per_attempt: camera.false_accept_per_attempt,
            references: enrolled,
            score_min: camera.min_similarity_score,
        };
        let rules =
            IdentityRules::new(Arc::clone(&embedding.tail), Arc::clone(&score_map), options);
        check(&camera.name, &rules, &embedding.file.name, visits_per_day)
    };
    cameras.iter().map(check).collect()
}

fn check(camera: &str, rules: &IdentityRules, model: &str, visits_per_day: u32) -> Check {
    let name = format!("identity {camera}");
    let options = rules.options();
    let asked = options.false_accept_per_attempt;
    if let Err(unsupported) = rules.supported() {
        let remedy = format!(
            "false_accept_per_attempt = {:.0e} or more for this camera, at most {} reference faces \
             in its collection, or another embedding model",
            rounded_up(unsupported.false_accept_min),
            unsupported.references_max
        );
        let detail = format!("{unsupported}; nobody is recognised by {model} until then");
        return Check::failed(name, detail, remedy);
    }
    let a_year = asked * f64::from(visits_per_day) * DAYS_PER_YEAR;
    Check::ok(
        name,
        format!(
            "at most {} of strangers' visits end as somebody who is enrolled ({} people now): up to \
             {} wrong openings a year at {visits_per_day} such visits a day; {model} can promise \
             that for up to {} reference faces",
            per_cent(asked),
            options.references,
            count(a_year),
            rules.references_max()
        ),
    )
}

/// The next number of one digit that is not below, so that the advice suffices as it is printed.
fn rounded_up(rate: f64) -> f64 {
    let digit = 10_f64.powf(rate.log10().floor());
    (rate / digit).ceil() * digit
}

fn per_cent(rate: f64) -> String {
    format!("{} %", (rate * 1e8).round() / 1e6)
}

fn count(number: f64) -> String {
    match number {
        rare if rare < 0.1 => format!("{rare:.3}"),
        few if few < 10.0 => format!("{few:.1}"),
        many => format!("{many:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::State;
    use crate::face::comparison::Score;
    use crate::face::comparison::ScoreMap;
    use crate::face::tail::Tail;
    use crate::face::tail::TailEntry;

    fn rules(false_accept: f64, references: usize) -> IdentityRules {
        let tail = Tail::new(TailEntry {
            knots: vec![[0.1, -1.0], [0.5, -6.0]],
            correlation: 0.8,
            comparisons: 10_000_000,
        });
        let map = ScoreMap::new(vec![[-1.0, 0.0], [1.0, 1.0]]).unwrap();
        let options = IdentityOptions {
            false_accept_per_attempt: false_accept,
            references,
            score_min: Score::new(0.7).unwrap(),
        };
        IdentityRules::new(Arc::new(tail.unwrap()), Arc::new(map), options)
    }

    #[test]
    fn a_setting_is_told_in_openings_a_year() {
        let row = check("door", &rules(1e-3, 12), "a model", 20);
        assert_eq!((row.name.as_str(), row.state), ("identity door", State::Ok));
        for part in ["at most 0.1 % of", "12 people", "7.3 wrong openings", "20 such visits"] {
            assert!(row.detail.contains(part), "{part}: {}", row.detail);
        }
        assert!(check("door", &rules(1e-2, 12), "a model", 100).detail.contains("365 wrong"));
    }

    #[test]
    fn a_setting_that_cannot_be_promised_fails_and_the_advice_suffices() {
        let rules_of = |false_accept| rules(false_accept, 1_000_000);
        let row = check("door", &rules_of(1e-6), "a model", 20);
        assert_eq!(row.state, State::Failed);
        assert!(row.detail.contains("1000000 references"), "{}", row.detail);
        let advice = rounded_up(rules_of(1e-6).supported().unwrap_err().false_accept_min);
        assert!(row.remedy.contains(&format!("{advice:.0e}")), "{}", row.remedy);
        assert_eq!(rules_of(advice).supported(), Ok(()));
    }
}
