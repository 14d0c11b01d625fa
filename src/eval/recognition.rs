//! `facelatch eval recognition`: verification pairs, rates over all comparisons, the score map
//! calibrated on one half of the people and measured on the other, identification; as
//! `report.json`, `report.md` and plots.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::eval::calibration::{self, Impostors};
use crate::eval::dataset::{self, Dataset};
use crate::eval::distribution::{Distribution, clopper_pearson};
use crate::eval::extraction;
use crate::eval::identification::Searches;
use crate::eval::pairs::{self, PairAccuracy};
use crate::eval::plots::{self, Curve, Labels};
use crate::eval::rate::Rate;
use crate::face::comparison::{Score, ScoreMap};
use crate::face::template::Template;
use crate::recognition::{RecognitionInfo, Recognizer};

/// False match rates that the report lists.
const RATES: [f64; 4] = [1e-2, 1e-3, 1e-4, 1e-5];

/// What is evaluated and where the report goes.
pub struct Options<'a> {
    /// Folder of the pictures.
    pub data: &'a Path,
    /// Folder of the report; made when absent.
    pub out: &'a Path,
    /// The models.
    pub info: &'a RecognitionInfo,
    /// Name of the embedding model in the manifest.
    pub embedding: &'a str,
    /// Loads one set of networks per thread.
    pub make: &'a (dyn Fn() -> anyhow::Result<Recognizer> + Sync),
}

/// Everything that is measured.
struct Report<'a> {
    options: &'a Options<'a>,
    pictures: usize,
    people: usize,
    without_face: usize,
    pairs: Option<PairAccuracy>,
    genuine: Distribution,
    impostor: Distribution,
    /// `None` when the sample is too small for one.
    calibrated: Option<ScoreMap>,
    measured: Vec<ScoreRow>,
    tail: TailKnots,
    searches: Searches,
}

/// The tail of false matches, of everybody in `people`: nobody of `strangers` has a part in it.
struct TailKnots {
    knots: Vec<[f32; 2]>,
    comparisons: u64,
    /// Comparisons of one person under two names, which are left out.
    doubles: u64,
}

/// A score of the calibrated or of the pack's map, measured on people that the calibration has
/// not seen.
struct ScoreRow {
    map: &'static str,
    score: f32,
    cosine: f32,
    false_matches: u64,
    impostor_trials: u64,
    fmr: f64,
    interval: (f64, f64),
    true_matches: u64,
    genuine_trials: u64,
}

/// Runs the evaluation, writes the report and answers its JSON.
pub fn run(options: &Options) -> anyhow::Result<Value> {
    let dataset = dataset::read(options.data)?;
    let templates = extraction::templates(&dataset.pictures, options.make)?;
    let report = measure(options, &dataset, &templates);
    fs::create_dir_all(options.out).with_context(|| options.out.display().to_string())?;
    let json = report.json();
    write(options.out, "report.json", &format!("{json:#}\n"))?;
    write(options.out, "report.md", &report.markdown()?)?;
    report.plots()?;
    Ok(json)
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let file = dir.join(name);
    fs::write(&file, text).with_context(|| file.display().to_string())
}

fn measure<'a>(
    options: &'a Options<'a>,
    dataset: &Dataset,
    templates: &[Option<Template>],
) -> Report<'a> {
    let (people, strangers) = by_person(dataset, templates);
    // Alternating by name order: both halves hold much and little photographed people alike.
    let half = |odd: bool| -> Vec<Vec<&Template>> {
        let chosen = people.iter().enumerate().filter(|(index, _)| (index % 2 == 1) == odd);
        chosen.map(|(_, own)| own.clone()).collect()
    };
    let (calibration_half, report_half) = (half(false), half(true));
    let calibration_impostors = Impostors::compare(&calibration_half);
    let report_impostors = Impostors::compare(&report_half);
    let calibrated = calibration::score_map(&calibration_impostors).ok();
    let report_genuine = genuine(&report_half);
    let mut measured = Vec::new();
    let maps = [("calibrated", calibrated.as_ref()), ("pack", Some(&options.info.score_map))];
    for (name, map) in maps.into_iter().filter_map(|(name, map)| Some((name, map?))) {
        measured.extend(score_rows(name, map, &report_impostors, &report_genuine));
    }
    let mut impostor = cross(&calibration_half, &report_half);
    impostor.merge(&calibration_impostors.distribution);
    impostor.merge(&report_impostors.distribution);
    let genuine_of_all = genuine(&people);
    let tail = tail(&people, &genuine_of_all);
    let enrolled: Vec<Vec<&Template>> =
        people.iter().filter(|own| own.len() >= 2).cloned().collect();
    Report {
        options,
        pictures: dataset.pictures.len(),
        people: dataset.names.len(),
        without_face: templates.iter().filter(|template| template.is_none()).count(),
        pairs: pairs::accuracy(&dataset.pairs, |pair| {
            let (a, b) = (templates[pair.first].as_ref()?, templates[pair.second].as_ref()?);
            Some(a.cosine(b))
        }),
        genuine: genuine_of_all,
        impostor,
        calibrated,
        measured,
        tail,
        searches: Searches::run(&enrolled, &strangers),
    }
}

fn tail(people: &[Vec<&Template>], genuine: &Distribution) -> TailKnots {
    let mut impostors = Impostors::compare(people);
    let doubles = impostors.forget_doubles(genuine);
    let comparisons = impostors.distribution.total();
    TailKnots { knots: calibration::tail_knots(&impostors), comparisons, doubles }
}

/// Templates of each person, and of all strangers.
fn by_person<'t>(
    dataset: &Dataset,
    templates: &'t [Option<Template>],
) -> (Vec<Vec<&'t Template>>, Vec<&'t Template>) {
    let mut people: Vec<Vec<&Template>> = vec![Vec::new(); dataset.names.len()];
    let mut strangers = Vec::new();
    for (picture, template) in dataset.pictures.iter().zip(templates) {
        let Some(template) = template else { continue };
        if picture.stranger {
            strangers.push(template);
        } else {
            people[picture.person].push(template);
        }
    }
    people.retain(|own| !own.is_empty());
    (people, strangers)
}

fn genuine(people: &[Vec<&Template>]) -> Distribution {
    let mut distribution = Distribution::default();
    for own in people {
        for (index, a) in own.iter().enumerate() {
            own[index + 1..].iter().for_each(|b| distribution.add(a.cosine(b)));
        }
    }
    distribution
}

fn cross(left: &[Vec<&Template>], right: &[Vec<&Template>]) -> Distribution {
    let mut distribution = Distribution::default();
    for a in left.iter().flatten() {
        for b in right.iter().flatten() {
            distribution.add(a.cosine(b));
        }
    }
    distribution
}

fn score_rows(
    map_name: &'static str,
    map: &ScoreMap,
    impostors: &Impostors,
    genuine: &Distribution,
) -> Vec<ScoreRow> {
    let scores: Vec<Score> = [0.60, 0.67, 0.70, 0.80].into_iter().filter_map(Score::new).collect();
    let thresholds: Vec<f32> = scores.iter().map(|score| map.cosine(*score)).collect();
    let resampled = impostors.resampled_rates(&thresholds);
    let row = |(index, score): (usize, &Score)| {
        let cosine = thresholds[index];
        let trials = impostors.distribution.total();
        let hits = impostors.distribution.at_least(cosine);
        // The wider of both: resampling people says nothing where no false match occurred.
        let exact = clopper_pearson(hits, trials);
        let over_people =
            calibration::interval(resampled.iter().map(|rates| rates[index]).collect());
        ScoreRow {
            map: map_name,
            score: score.value(),
            cosine,
            false_matches: hits,
            impostor_trials: trials,
            fmr: impostors.distribution.rate_at_least(cosine),
            interval: (over_people.0.min(exact.0), over_people.1.max(exact.1)),
            true_matches: genuine.at_least(cosine),
            genuine_trials: genuine.total(),
        }
    };
    scores.iter().enumerate().map(row).collect()
}

impl Report<'_> {
    /// Searches with the thresholds that the report lists, each with its name.
    fn search_thresholds(&self) -> Vec<(String, f32)> {
        let map = self.calibrated.as_ref().unwrap_or(&self.options.info.score_map);
        let at = |score: f32| Score::new(score).map_or(1.0, |s| map.cosine(s));
        let mut thresholds = vec![
            ("score 0.67".into(), at(0.67)),
            ("score 0.70".into(), at(0.70)),
            ("score 0.80".into(), at(0.80)),
        ];
        if self.searches.strangers.len() >= 100 {
            thresholds.push(("FPIR 1 %".into(), self.searches.threshold_for(0.01)));
        }
        thresholds
    }

    /// The calibrated map.
    fn knots(&self) -> Option<Vec<[f64; 2]>> {
        Some(rounded(self.calibrated.as_ref()?.knots()))
    }

    /// The false match rates that so many comparisons can tell apart.
    fn rates(&self) -> impl Iterator<Item = f64> {
        let total = self.impostor.total() as f64;
        RATES.into_iter().filter(move |fmr| fmr * total >= 1.0)
    }

    fn json(&self) -> Value {
        let rates: Vec<Value> = self
            .rates()
            .map(|fmr| {
                let threshold = self.impostor.threshold_for(fmr);
                json!({"fmr": fmr, "cosine": threshold,
                       "tar": Rate::of(self.genuine.at_least(threshold), self.genuine.total()).json()})
            })
            .collect();
        let scores: Vec<Value> = self.measured.iter().map(ScoreRow::json).collect();
        let mated = self.searches.mated.len() as u64;
        let strangers = self.searches.strangers.len() as u64;
        let identification: Vec<Value> = self
            .search_thresholds()
            .into_iter()
            .map(|(name, cosine)| {
                json!({"threshold": name, "cosine": cosine,
                       "fnir": Rate::of(self.searches.misses(cosine), mated).json(),
                       "fpir": Rate::of(self.searches.false_positives(cosine), strangers).json()})
            })
            .collect();
        json!({
            "pack": self.options.info.pack,
            "embedding": self.options.embedding,
            "embedding_model": self.options.info.embedding_model.0,
            "pictures": self.pictures,
            "people": self.people,
            "face_found": Rate::of((self.pictures - self.without_face) as u64, self.pictures as u64).json(),
            "accuracy": self.pairs.as_ref().map(|pairs| pairs.accuracy),
            "pairs": self.pairs,
            "tar_at_fmr": rates,
            "comparisons": {"genuine": self.genuine.total(), "impostor": self.impostor.total()},
            "score_map": self.knots(),
            "tail": {
                "knots": rounded(&self.tail.knots), "comparisons": self.tail.comparisons,
                "left_out": self.tail.doubles,
            },
            "scores_on_other_people": scores,
            "identification": {
                "gallery": self.searches.gallery,
                "rank_1": Rate::of(self.searches.rank_one(), mated).json(),
                "thresholds": identification,
            },
        })
    }

    fn markdown(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let info = self.options.info;
        writeln!(
            out,
            "# Recognition: pack `{}`, embedding `{}`\n",
            info.pack, self.options.embedding
        )?;
        let found = (self.pictures - self.without_face) as u64;
        writeln!(
            out,
            "{} pictures of {} people; a face found in {}.\n",
            self.pictures,
            self.people,
            Rate::of(found, self.pictures as u64)
        )?;
        writeln!(
            out,
            "Counts stand behind every rate, with 95 % intervals: Clopper–Pearson, and for the score map the wider of that and a bootstrap over people.\n"
        )?;
        if let Some(pairs) = &self.pairs {
            writeln!(out, "## Verification pairs\n")?;
            writeln!(
                out,
                "Accuracy {:.2} % ± {:.2} (standard deviation over {} folds, {} pairs, threshold from the other folds; {} pairs without a face count as different).\n",
                100.0 * pairs.accuracy,
                100.0 * pairs.deviation,
                pairs.folds.len(),
                pairs.pairs,
                pairs.without_face
            )?;
        }
        writeln!(out, "## All comparisons\n\n![ROC](roc.svg)\n\n![Scores](scores.svg)\n")?;
        writeln!(out, "{} genuine, {} impostor.\n", self.genuine.total(), self.impostor.total())?;
        writeln!(out, "| FMR | cosine | TAR |\n|---|---|---|")?;
        for fmr in self.rates() {
            let cosine = self.impostor.threshold_for(fmr);
            let tar = Rate::of(self.genuine.at_least(cosine), self.genuine.total());
            writeln!(out, "| {fmr:.0e} | {cosine:.3} | {tar} |")?;
        }
        writeln!(
            out,
            "\n## Score map\n\nCalibrated on every second person; measured on the others, who have no part in it.\n"
        )?;
        writeln!(
            out,
            "| map | score | cosine | FMR on other people (95 %) | false matches of | TAR |\n|---|---|---|---|---|---|"
        )?;
        for row in &self.measured {
            row.markdown(&mut out)?;
        }
        match self.knots() {
            Some(knots) => writeln!(out, "\nFor the manifest: `score_map = {}`\n", json!(knots))?,
            None => writeln!(
                out,
                "\nThis sample is too small to calibrate a map on: the false match rates that \
                 it would have to tell apart do not occur in it. The pack's map was measured alone.\n"
            )?,
        }
        self.tail_markdown(&mut out)?;
        self.identification_markdown(&mut out)?;
        Ok(out)
    }

    fn tail_markdown(&self, out: &mut String) -> std::fmt::Result {
        let tail = &self.tail;
        writeln!(
            out,
            "## Tail of false matches\n\nOf everybody in `people`, each rate the bound that holds in \
             95 % of the resamplings; {} comparisons as high as half of the true matches are left \
             out, being one person under two names. The correlation is of `facelatch eval identity`.\n\n\
             For the manifest: `tail = {{ correlation = {}, comparisons = {}, knots = {} }}`\n",
            tail.doubles,
            self.options.info.tail.correlation(),
            tail.comparisons,
            json!(rounded(&tail.knots))
        )
    }

    fn identification_markdown(&self, out: &mut String) -> std::fmt::Result {
        let mated = self.searches.mated.len() as u64;
        let strangers = self.searches.strangers.len() as u64;
        writeln!(out, "## Identification\n\n![FNIR over FPIR](identification.svg)\n")?;
        writeln!(
            out,
            "{} people with one picture each; rank 1: {}.\n",
            self.searches.gallery,
            Rate::of(self.searches.rank_one(), mated)
        )?;
        writeln!(out, "| threshold | cosine | FNIR | FPIR |\n|---|---|---|---|")?;
        for (name, cosine) in self.search_thresholds() {
            writeln!(
                out,
                "| {name} | {cosine:.3} | {} | {} |",
                Rate::of(self.searches.misses(cosine), mated),
                Rate::of(self.searches.false_positives(cosine), strangers)
            )?;
        }
        Ok(())
    }

    fn plots(&self) -> anyhow::Result<()> {
        let out = self.options.out;
        let model = self.options.embedding;
        let thresholds: Vec<f32> = (-200..=1000).map(|step| step as f32 / 1000.0).collect();
        let roc = thresholds
            .iter()
            .rev()
            .map(|t| (self.impostor.rate_at_least(*t), self.genuine.rate_at_least(*t)))
            .collect();
        let labels = |title: &str, x: &str, y: &str| Labels {
            title: format!("{title} ({model})"),
            x: x.into(),
            y: y.into(),
        };
        plots::rates(
            &out.join("roc.svg"),
            &labels("ROC, all comparisons", "false match rate", "true accept rate"),
            1e-6,
            (0.8, 1.0),
            &[Curve { name: "people against people".into(), points: roc }],
        )?;
        plots::lines(
            &out.join("scores.svg"),
            &labels("Distribution of comparisons", "cosine", "share per bar"),
            (-0.4, 1.0),
            &[
                Curve { name: "impostor".into(), points: self.impostor.bars(-0.4, 140) },
                Curve { name: "genuine".into(), points: self.genuine.bars(-0.4, 140) },
            ],
        )?;
        let (mated, strangers) =
            (self.searches.mated.len().max(1) as f64, self.searches.strangers.len().max(1) as f64);
        let points = thresholds
            .iter()
            .rev()
            .map(|t| {
                let fpir = self.searches.false_positives(*t) as f64 / strangers;
                (fpir, self.searches.misses(*t) as f64 / mated)
            })
            .collect();
        plots::rates(
            &out.join("identification.svg"),
            &labels("Identification", "FPIR", "FNIR"),
            1e-3,
            (0.0, 0.4),
            &[Curve { name: format!("gallery of {}", self.searches.gallery), points }],
        )
    }
}

/// Knots with the digits that they were rounded to, which `f32` does not print.
fn rounded(knots: &[[f32; 2]]) -> Vec<[f64; 2]> {
    let digits = |value: f32| (f64::from(value) * 1e4).round() / 1e4;
    knots.iter().map(|knot| knot.map(digits)).collect()
}

impl ScoreRow {
    fn json(&self) -> Value {
        json!({
            "map": self.map, "score": self.score, "cosine": self.cosine,
            "fmr": self.fmr, "fmr_interval_95": [self.interval.0, self.interval.1],
            "false_matches": self.false_matches, "impostor_trials": self.impostor_trials,
            "tar": Rate::of(self.true_matches, self.genuine_trials).json(),
        })
    }

    fn markdown(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "| {} | {:.2} | {:.3} | {:.2e} ({:.2e}–{:.2e}) | {} of {} | {} |",
            self.map,
            self.score,
            self.cosine,
            self.fmr,
            self.interval.0,
            self.interval.1,
            self.false_matches,
            self.impostor_trials,
            Rate::of(self.true_matches, self.genuine_trials)
        )
    }
}
