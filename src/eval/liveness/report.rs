//! What an evaluation amounts to, as JSON and as plots.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::eval::extraction::workers;
use crate::eval::liveness::Options;
use crate::eval::liveness::Outcome;
use crate::eval::liveness::dataset::Picture;
use crate::eval::liveness::dataset::Pictures;
use crate::eval::liveness::dataset::Presentation;
use crate::eval::liveness::det;
use crate::eval::liveness::det::BpcerAt;
use crate::eval::liveness::tally::Cues;
use crate::eval::liveness::tally::Judgement;
use crate::eval::liveness::tally::Tally;
use crate::eval::liveness::tally::Who;
use crate::eval::liveness::tally::median_ms;
use crate::eval::plots;
use crate::eval::plots::Curve;
use crate::eval::plots::Labels;
use crate::eval::rate::MeanRate;
use crate::eval::rate::Rate;
use crate::face::liveness::Cue;
use crate::face::liveness::Finding;
use crate::face::liveness::LivenessReason;

/// The calibrated score at and above which a presentation is classified as bona fide.
pub const OPERATING_POINT: f32 = 0.5;

/// Species with a curve of their own.
const CURVES_MAX: usize = 3;
/// Bars of the histogram of scores.
const BARS: usize = 40;

/// Everything that was counted.
pub struct Report<'a> {
    /// What was asked for.
    pub options: &'a Options<'a>,
    /// The files.
    pub dataset: &'a Pictures,
    outcomes: &'a [Outcome],
    /// Bona fide presentations by group.
    pub groups: BTreeMap<String, Tally>,
    /// All of them.
    pub bona_fide: Tally,
    /// Attacks by species, worst first.
    pub species: Vec<(String, Tally)>,
    /// All of them.
    pub attacks: Tally,
    /// Pictures that have to be refused, by reason and kind.
    pub refused: BTreeMap<(LivenessReason, String), Tally>,
    /// What the cues did.
    pub cues: Cues,
    /// Median milliseconds of checks that went to the end, and how many they were.
    pub time: Option<(f64, usize)>,
}

impl<'a> Report<'a> {
    /// Counts the outcomes of the dataset's pictures, in their order.
    pub fn new(options: &'a Options<'a>, dataset: &'a Pictures, outcomes: &'a [Outcome]) -> Self {
        let (mut groups, mut species, mut refused) =
            (BTreeMap::<_, Tally>::new(), BTreeMap::<_, Tally>::new(), BTreeMap::new());
        for (picture, judgement) in judged(dataset, outcomes) {
            let tally = match &picture.presentation {
                Presentation::BonaFide { group } => groups.entry(group.clone()).or_default(),
                Presentation::Attack { species: own } => species.entry(own.clone()).or_default(),
                Presentation::Refused { reason, kind } => {
                    refused.entry((*reason, kind.clone())).or_insert_with(Tally::default)
                }
            };
            tally.add(&judgement.report);
        }
        let sum = |tallies: &BTreeMap<String, Tally>| {
            tallies.values().fold(Tally::default(), Tally::plus)
        };
        let (bona_fide, attacks) = (sum(&groups), sum(&species));
        let mut species: Vec<(String, Tally)> = species.into_iter().collect();
        species.sort_by(|(_, a), (_, b)| {
            a.classified_bona_fide().highest_first(b.classified_bona_fide())
        });
        let who = |picture: &Picture| match picture.presentation {
            Presentation::BonaFide { .. } => Some(Who::BonaFide),
            Presentation::Attack { .. } => Some(Who::Attack),
            Presentation::Refused { .. } => None,
        };
        let cues = Cues::of(
            judged(dataset, outcomes).filter_map(|(picture, j)| Some((who(picture)?, &j.report))),
        );
        let time = median_ms(judged(dataset, outcomes).map(|(_, judgement)| judgement));
        Self {
            options,
            dataset,
            outcomes,
            groups,
            bona_fide,
            species,
            attacks,
            refused,
            cues,
            time,
        }
    }

    /// Pictures that could not be read, each with the reason.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.dataset.pictures.iter().zip(self.outcomes).filter_map(|(picture, outcome)| {
            match outcome {
                Outcome::Unreadable(reason) => Some((picture.name.as_str(), reason.as_str())),
                Outcome::Judged(_) => None,
            }
        })
    }

    /// The mean of the BPCER and the worst species' APCER.
    pub fn acer(&self) -> Option<MeanRate> {
        let (_, worst) = self.species.first()?;
        MeanRate::of(self.bona_fide.classified_attack(), worst.classified_bona_fide())
    }

    /// BPCER20 or BPCER10 of a species: the BPCER where its APCER is one in so many.
    pub fn bpcer_at(&self, one_in: usize, species: &Tally) -> BpcerAt {
        det::bpcer_at(one_in, species.scores(), self.bona_fide.scores())
    }

    /// The content of `report.json`.
    pub fn json(&self) -> Value {
        let info = self.options.info;
        let apcer: Map<String, Value> = self
            .species
            .iter()
            .map(|(name, tally)| (name.clone(), self.species_json(tally)))
            .collect();
        let worst_first: Vec<&String> = self.species.iter().map(|(name, _)| name).collect();
        let groups: Map<String, Value> =
            self.groups.iter().map(|(name, tally)| (name.clone(), bona_fide_json(tally))).collect();
        let mut bpcer = bona_fide_json(&self.bona_fide);
        bpcer["groups"] = groups.into();
        let unreadable: Vec<Value> = self
            .unreadable()
            .map(|(name, reason)| json!({"path": name, "problem": reason}))
            .collect();
        json!({
            "program": env!("CARGO_PKG_VERSION"),
            "pack": info.pack,
            "rules": self.options.rules.name(),
            "files": self.dataset.pictures.len(),
            "unreadable": unreadable,
            "left_out": self.dataset.left_out,
            "threshold": self.threshold_json(),
            "apcer": apcer,
            "worst_first": worst_first,
            "bpcer": bpcer,
            "acer": self.acer().map(MeanRate::json),
            "cues": self.cues_json(),
            "reasons": {"bona_fide": reasons(&self.bona_fide), "attack": reasons(&self.attacks)},
            "refused": self.refused_json(),
            "check_ms": self.time.map(|(median, n)| json!({
                "median": median, "pictures": n,
                "side_by_side": workers(self.dataset.pictures.len()),
            })),
            "pictures": self.pictures_json(),
        })
    }

    fn species_json(&self, tally: &Tally) -> Value {
        let mut species = tally.classified_bona_fide().json();
        species["apnrr"] = tally.non_responses().json();
        species["let_through"] = tally.passed().json();
        species["reasons"] = reasons(tally);
        for (name, one_in) in [("bpcer20", 20), ("bpcer10", 10)] {
            species[name] = match self.bpcer_at(one_in, tally) {
                BpcerAt::Rate(rate) => rate.json(),
                BpcerAt::TooFew => "too few".into(),
            };
        }
        species
    }

    fn threshold_json(&self) -> Value {
        let limits: Map<String, Value> = self
            .cues
            .limits()
            .map(|(cue, (low, high))| {
                let limit = if low == high {
                    json!(digits(low))
                } else {
                    json!([digits(low), digits(high)])
                };
                (name(cue), limit)
            })
            .collect();
        json!({"score": OPERATING_POINT, "limits": limits})
    }

    fn cues_json(&self) -> Value {
        let of = |cue, who| {
            let found = self.cues.contribution(cue, who);
            json!({
                "refused": found.refused.json(),
                "alone": found.alone.json(),
                "alone_with_others_unmeasured": found.alone_unsure,
            })
        };
        let cues = self.cues.limits().map(|(cue, _)| {
            let about = json!({
                "reason": cue.reason().code(),
                "attack": of(cue, Who::Attack),
                "bona_fide": of(cue, Who::BonaFide),
            });
            (name(cue), about)
        });
        Value::Object(cues.collect())
    }

    fn refused_json(&self) -> Value {
        let rows = self.refused.iter().map(|((reason, kind), tally)| {
            json!({
                "reason": reason.code(),
                "kind": kind,
                "for_that_reason": tally.refused_for(*reason).json(),
                "for_another": tally.refused_otherwise(*reason).json(),
                "accepted": tally.passed().json(),
                "reasons": reasons(tally),
            })
        });
        rows.collect()
    }

    fn pictures_json(&self) -> Value {
        let rows = self.dataset.pictures.iter().zip(self.outcomes).map(|(picture, outcome)| {
            let mut row = match &picture.presentation {
                Presentation::BonaFide { group } => {
                    json!({"presentation": "bona_fide", "group": group})
                }
                Presentation::Attack { species } => {
                    json!({"presentation": "attack", "species": species})
                }
                Presentation::Refused { reason, kind } => {
                    json!({"presentation": "refused", "expected": reason.code(), "kind": kind})
                }
            };
            row["path"] = picture.name.clone().into();
            match outcome {
                Outcome::Unreadable(problem) => row["problem"] = problem.clone().into(),
                Outcome::Judged(judgement) => add_judgement(&mut row, judgement),
            }
            row
        });
        rows.collect()
    }

    /// Writes `det.svg` and `scores.svg`.
    pub fn plots(&self, out: &Path) -> anyhow::Result<()> {
        let title = |what: &str| format!("{what} (pack {})", self.options.info.pack);
        let bona_fide = self.bona_fide.scores();
        let with_responses = self.species.iter().filter(|(_, tally)| !tally.scores().is_empty());
        let mut of_species: Vec<(String, &Tally)> = with_responses
            .take(CURVES_MAX)
            .map(|(name, tally)| (format!("{name} (n {})", tally.scores().len()), tally))
            .collect();
        // One species is its own sum.
        if of_species.len() > 1 {
            let name = format!("all attacks (n {})", self.attacks.scores().len());
            of_species.push((name, &self.attacks));
        }
        let curves: Vec<Curve> = of_species
            .iter()
            .map(|(name, tally)| Curve {
                name: name.clone(),
                points: det::curve(tally.scores(), bona_fide),
            })
            .collect();
        let marks: Vec<(f64, f64)> = of_species
            .iter()
            .filter_map(|(_, tally)| det::point(OPERATING_POINT, tally.scores(), bona_fide))
            .collect();
        let labels = Labels {
            title: title("DET of responses; circles: operating point"),
            x: format!("BPCER (n {})", bona_fide.len()),
            y: "APCER".into(),
        };
        let most = self.attacks.scores().len().max(bona_fide.len());
        plots::det(&out.join("det.svg"), &labels, floor(most), &curves, &marks)?;
        let bars = |name: String, scores| Curve { name, points: det::histogram(scores, BARS) };
        let mut curves = vec![bars(format!("bona fide (n {})", bona_fide.len()), bona_fide)];
        // The sum stands last, the worst species first.
        curves.extend(of_species.last().map(|(name, all)| bars(name.clone(), all.scores())));
        let worst = of_species.first().filter(|_| of_species.len() > 1);
        curves.extend(worst.map(|(name, tally)| bars(name.clone(), tally.scores())));
        let highest =
            curves.iter().flat_map(|curve| &curve.points).map(|p| p.1).fold(0.0, f64::max);
        let at = f64::from(OPERATING_POINT);
        curves
            .push(Curve { name: "operating point".into(), points: vec![(at, 0.0), (at, highest)] });
        let labels = Labels {
            title: title("Calibrated scores of responses"),
            x: "score".into(),
            y: "share per bar".into(),
        };
        plots::lines(&out.join("scores.svg"), &labels, (0.0, 1.0), &curves)
    }
}

/// Every picture that could be read, with what was said of it.
fn judged<'a>(
    dataset: &'a Pictures,
    outcomes: &'a [Outcome],
) -> impl Iterator<Item = (&'a Picture, &'a Judgement)> + Clone {
    dataset.pictures.iter().zip(outcomes).filter_map(|(picture, outcome)| match outcome {
        Outcome::Judged(judgement) => Some((picture, judgement)),
        Outcome::Unreadable(_) => None,
    })
}

fn bona_fide_json(tally: &Tally) -> Value {
    let mut value = tally.classified_attack().json();
    value["bpnrr"] = tally.non_responses().json();
    value["accepted"] = tally.passed().json();
    value
}

fn reasons(tally: &Tally) -> Value {
    let rates =
        tally.reasons().map(|(reason, rate): (_, Rate)| (reason.code().into(), rate.json()));
    Value::Object(rates.collect())
}

fn add_judgement(row: &mut Value, judgement: &Judgement) {
    let report = &judgement.report;
    row["reason"] = report.failure.map(LivenessReason::code).into();
    row["score"] = report.pad_score.map(digits).into();
    row["ms"] = digits(judgement.time.as_secs_f32() * 1000.0).into();
    if let Some(pose) = report.pose {
        row["pose"] = json!({"yaw_deg": digits(pose.yaw_deg), "pitch_deg": digits(pose.pitch_deg)});
    }
    let finding = |finding: &Finding| {
        json!({
            "cue": finding.cue, "score": digits(finding.score), "limit": digits(finding.limit),
            "pass": finding.pass,
        })
    };
    row["findings"] = report.findings.iter().map(finding).collect();
}

/// The word of a cue in events and answers.
pub fn name(cue: Cue) -> String {
    json!(cue).as_str().unwrap_or_default().to_string()
}

/// Four digits behind the point are more than a score means, and read better than an `f32`.
fn digits(value: f32) -> f64 {
    (f64::from(value) * 1e4).round() / 1e4
}

/// The decade below half of one in `trials`, so that a rate of zero lies clearly below one.
fn floor(trials: usize) -> f64 {
    10f64.powf((0.5 / trials.max(1) as f64).log10().floor())
}
