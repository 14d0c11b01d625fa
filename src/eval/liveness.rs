//! `facelatch eval liveness`: how many attacks pass and how many people are refused, in the words
//! and definitions of ISO/IEC 30107-3; as `report.json`, `report.md` and plots.
//!
//! Every picture takes the path of a request: detection, then the liveness check. An outcome is a
//! response, bona fide or attack, or a non-response: the check ended before it could tell, for a
//! reason of its own. APCER and BPCER are of responses, APNRR and BPNRR of all presentations.

pub mod dataset;
pub mod det;
pub mod markdown;
pub mod report;
pub mod tally;

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use serde_json::Value;

use crate::eval::extraction;
use crate::eval::extraction::Make;
use crate::eval::liveness::dataset::Picture;
use crate::eval::liveness::report::Report;
use crate::eval::liveness::tally::Judgement;
use crate::face::detection::main_face;
use crate::face::image::Image;
use crate::face::liveness::ImageRules;
use crate::face::liveness::LivenessReason;
use crate::face::liveness::LivenessReport;
use crate::picture;
use crate::recognition::RecognitionInfo;
use crate::recognition::Recognizer;

/// Names in the message about too many unreadable pictures.
const NAMED_MAX: usize = 5;
/// File that is made and deleted to see whether the folder of the report can be written to.
const PROBE: &str = ".facelatch-probe";

/// The image rules of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleSet {
    /// Those for pictures that are posted.
    Posted,
    /// Those for frames of a camera, where every face is judged as if it were alone.
    Camera,
    /// Those for posted pictures without the rules on size and place.
    AnySize,
}

impl RuleSet {
    /// Its word on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Posted => "posted",
            Self::Camera => "camera",
            Self::AnySize => "any-size",
        }
    }

    const fn limits(self) -> &'static ImageRules {
        match self {
            Self::Posted => &ImageRules::STILL,
            Self::Camera => &ImageRules::CAMERA,
            Self::AnySize => &ImageRules::ANY_SIZE,
        }
    }

    /// The outcome for a decoded picture. A detector that fails is a non-response, as at the door.
    pub fn check(self, recognizer: &mut Recognizer, image: &Image) -> Judgement {
        // A camera loop takes the first look alone; a request takes the second one as well.
        let faces = match self {
            Self::Camera => recognizer.detect_near(image),
            Self::Posted | Self::AnySize => recognizer.detect(image),
        };
        let Ok(faces) = faces else {
            let report = LivenessReport::refused(LivenessReason::UnknownError);
            return Judgement { report, time: Duration::ZERO };
        };
        let judged = match (self, main_face(&faces)) {
            (Self::Camera, Some(face)) => vec![*face],
            _ => faces,
        };
        let start = Instant::now();
        let report = recognizer.liveness_by(self.limits(), image, &judged);
        Judgement { report, time: start.elapsed() }
    }
}

/// What is evaluated and where the report goes.
pub struct Options<'a> {
    /// Folder of the pictures.
    pub data: &'a Path,
    /// Folder of the report; made when absent.
    pub out: &'a Path,
    /// The rules that the pictures have to keep.
    pub rules: RuleSet,
    /// The models.
    pub info: &'a RecognitionInfo,
    /// Loads one set of networks per thread.
    pub make: Make<'a>,
}

/// What became of a picture.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is no picture, for this reason; nothing was presented.
    Unreadable(String),
    /// The check said something.
    Judged(Judgement),
}

/// A finished evaluation.
pub struct Finished {
    /// The content of `report.json`.
    pub json: Value,
    /// The rates, for a terminal.
    pub summary: String,
}

/// The pack cannot tell an attack from a person.
#[derive(Debug, thiserror::Error)]
#[error(
    "LICENSE_ERROR: the pack `{pack}` has no liveness model, so every picture would be refused; \
     install one that has, with `facelatch models install`, and choose it with `models.pack`"
)]
pub struct NoLivenessModel {
    pack: String,
}

/// Refuses a pack without a liveness model.
pub fn needs_liveness(info: &RecognitionInfo) -> Result<(), NoLivenessModel> {
    if info.has_liveness { Ok(()) } else { Err(NoLivenessModel { pack: info.pack.clone() }) }
}

/// Runs the evaluation and writes the report.
pub fn run(options: &Options) -> anyhow::Result<Finished> {
    let dataset = dataset::read(options.data, options.out)?;
    needs_liveness(options.info)?;
    writable(options.out)?;
    let outcomes = extraction::each(&dataset.pictures, options.make, |recognizer, picture| {
        Ok(judge(recognizer, options.rules, picture))
    })?;
    enough(&dataset.pictures, &outcomes)?;
    let report = Report::new(options, &dataset, &outcomes);
    let json = report.json();
    write(options.out, "report.json", &format!("{json:#}\n"))?;
    write(options.out, "report.md", &markdown::page(&report)?)?;
    report.plots(options.out)?;
    Ok(Finished { json, summary: markdown::summary(&report)? })
}

/// Makes the folder of the report and a file in it, before pictures are judged for nothing.
fn writable(dir: &Path) -> anyhow::Result<()> {
    let probe = dir.join(PROBE);
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&probe, []))
        .and_then(|()| fs::remove_file(&probe))
        .with_context(|| format!("the report cannot be written to {}", dir.display()))
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let file = dir.join(name);
    fs::write(&file, text).with_context(|| file.display().to_string())
}

fn judge(recognizer: &mut Recognizer, rules: RuleSet, picture: &Picture) -> Outcome {
    let read = || anyhow::Ok(picture::decode(&dataset::file(&picture.path)?)?);
    match read() {
        Ok(image) => Outcome::Judged(rules.check(recognizer, &image)),
        Err(error) => Outcome::Unreadable(format!("{error:#}")),
    }
}

/// A folder that is mostly damaged says nothing about liveness.
fn enough(pictures: &[Picture], outcomes: &[Outcome]) -> anyhow::Result<()> {
    let unreadable: Vec<String> = pictures
        .iter()
        .zip(outcomes)
        .filter_map(|(picture, outcome)| match outcome {
            Outcome::Unreadable(reason) => Some(format!("{}: {reason}", picture.name)),
            Outcome::Judged(_) => None,
        })
        .collect();
    if 2 * unreadable.len() > pictures.len() {
        let named = unreadable[..unreadable.len().min(NAMED_MAX)].join("; ");
        bail!(
            "{} of {} pictures cannot be read, more than half; the first: {named}",
            unreadable.len(),
            pictures.len()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::UsageError;
    use crate::inference::Pack;
    use crate::recognition::info;
    use crate::recognition::scripted;
    use crate::recognition::scripted::Face;
    use crate::recognition::scripted::Kind;
    use crate::recognition::scripted::ScriptedLoader;
    use serde_json::json;
    use tempfile::TempDir;

    const TURNED: Face = Face { kind: Kind::Turned, ..Face::live(1) };
    const SMALL: Face = Face::live(1).at(140, 140, 100);

    fn paint(data: &Path, folder: &str, faces: &[Face]) {
        let folder = data.join(folder);
        fs::create_dir_all(&folder).unwrap();
        let before = fs::read_dir(&folder).unwrap().count();
        for (index, face) in faces.iter().enumerate() {
            let file = picture::encode_jpeg(&scripted::picture_of(&[*face]), 95);
            fs::write(folder.join(format!("{:02}.jpg", before + index)), file).unwrap();
        }
    }

    /// Seven of eight people with a response accepted; print opens in one of five, screen in one of
    /// twenty.
    fn painted() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let (live, attack) = (Face::live(1), Face::attack(2));
        paint(data, "bona-fide/near", &[live, live, live, TURNED, SMALL]);
        paint(data, "bona-fide/far", &[live, live, live, live, attack]);
        paint(data, "attack/print", &[attack, attack, live, attack, attack, SMALL]);
        paint(data, "attack/screen", &[[attack; 19].as_slice(), &[live]].concat());
        paint(data, "attack", &[attack]);
        paint(data, "refused/FACE_ANGLE_TOO_LARGE/painted", &[TURNED, TURNED, live, SMALL]);
        let nobody = Image::from_rgb(64, 64, vec![90; 64 * 64 * 3]).unwrap();
        fs::create_dir_all(data.join("refused/FACE_NOT_FOUND")).unwrap();
        let nobody = picture::encode_jpeg(&nobody, 95);
        fs::write(data.join("refused/FACE_NOT_FOUND/empty.jpg"), nobody).unwrap();
        fs::write(data.join("bona-fide/near/a|b.jpg"), "no picture").unwrap();
        fs::write(data.join("bona-fide/notes.txt"), "made by a brush").unwrap();
        dir
    }

    fn evaluate(data: &Path, rules: RuleSet, pack: &Pack) -> anyhow::Result<(Finished, String)> {
        let out = tempfile::tempdir().unwrap();
        let finished = run(&Options {
            data,
            out: out.path(),
            rules,
            info: &info(pack),
            make: &|| Ok(Recognizer::load(pack, &ScriptedLoader::default(), 1)?),
        })?;
        for file in ["det.svg", "scores.svg"] {
            assert!(fs::read_to_string(out.path().join(file)).unwrap().contains("</svg>"));
        }
        let json = fs::read_to_string(out.path().join("report.json")).unwrap();
        assert_eq!(json, format!("{:#}\n", finished.json));
        Ok((finished, fs::read_to_string(out.path().join("report.md")).unwrap()))
    }

    /// The report with its lines that differ from run to run or with the version made equal.
    fn lasting(page: &str) -> String {
        let line = |line: &str| match line.split_once("every cue took ") {
            Some((before, _)) => format!("{before}every cue took … ms.\n"),
            None => format!("{line}\n"),
        };
        let version = format!("facelatch {}.", env!("CARGO_PKG_VERSION"));
        page.lines().map(line).collect::<String>().replace(&version, "facelatch VERSION.")
    }

    #[test]
    fn a_small_report_is_the_golden_one() {
        let data = painted();
        let (_, page) = evaluate(data.path(), RuleSet::Posted, &scripted::pack()).unwrap();
        let page = lasting(&page);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/liveness_report.md");
        let golden = fs::read_to_string(golden).unwrap();
        assert_eq!(page, golden, "the report is now:\n{page}");
    }

    #[test]
    fn the_json_holds_the_rates_and_every_picture() {
        let data = painted();
        let (finished, _) = evaluate(data.path(), RuleSet::Posted, &scripted::pack()).unwrap();
        let json = finished.json;
        let rate = |value: &Value| (value["count"].as_u64(), value["trials"].as_u64());
        let of = |count, trials| (Some(count), Some(trials));
        assert_eq!(rate(&json["apcer"]["print"]), of(1, 5));
        assert_eq!(rate(&json["apcer"]["print"]["apnrr"]), of(1, 6));
        assert_eq!(json["apcer"]["print"]["bpcer10"], "too few");
        assert_eq!(rate(&json["apcer"]["screen"]["bpcer20"]), of(1, 8));
        assert_eq!(rate(&json["apcer"]["unnamed"]), of(0, 1));
        assert_eq!(json["worst_first"], json!(["print", "screen", "unnamed"]));
        assert_eq!(rate(&json["bpcer"]), of(1, 8));
        assert_eq!(rate(&json["bpcer"]["bpnrr"]), of(2, 10));
        assert_eq!(rate(&json["bpcer"]["groups"]["far"]), of(1, 5));
        assert!((json["acer"]["rate"].as_f64().unwrap() - 0.1625).abs() < 1e-9);
        assert_eq!(json["threshold"]["score"], 0.5);
        assert_eq!(rate(&json["cues"]["pad"]["attack"]["alone"]), of(24, 26));
        assert_eq!(rate(&json["reasons"]["bona_fide"]["FACE_TOO_SMALL"]), of(1, 10));
        let turned = &json["refused"][1];
        assert_eq!(turned["reason"], "FACE_ANGLE_TOO_LARGE");
        assert_eq!(rate(&turned["for_that_reason"]), of(2, 4));
        assert_eq!(rate(&turned["for_another"]), of(1, 4));
        assert_eq!(rate(&turned["accepted"]), of(1, 4));
        let pictures = json["pictures"].as_array().unwrap();
        assert_eq!(pictures.len(), 43);
        let of_path = |path: &str| pictures.iter().find(|p| p["path"] == path).unwrap();
        let damaged = of_path("bona-fide/near/a|b.jpg");
        assert!(damaged["problem"].as_str().unwrap().contains("decoded"), "{damaged}");
        let print = of_path("attack/print/00.jpg");
        assert_eq!(
            (&print["reason"], &print["species"]),
            (&json!("FACE_NOT_LIVE"), &json!("print"))
        );
        assert!(print["score"].as_f64().unwrap() < 0.5, "{print}");
        assert!(print["findings"].as_array().unwrap().iter().any(|f| f["cue"] == "pad"));
        assert_eq!(of_path("attack/print/02.jpg")["reason"], Value::Null);
    }

    /// The type forbids it; the page is held to it as a reader sees it.
    #[test]
    fn no_percentage_stands_without_count_trials_and_interval() {
        let data = painted();
        let (finished, page) = evaluate(data.path(), RuleSet::AnySize, &scripted::pack()).unwrap();
        let mut rates = 0;
        for text in [&page, &finished.summary] {
            assert!(naked_percentages(text).is_empty(), "{:?}", naked_percentages(text));
            rates += text.matches(" % (").count();
        }
        assert!(rates > 20, "{page}");
        for naked in ["APCER 12.5 %", "12.5% (of 8)", "3 % (1 of 30)", "3 % (of 30; 1–2)"] {
            assert_eq!(naked_percentages(naked).len(), 1, "{naked}");
        }
    }

    /// Percentages that nothing stands behind. The level of the intervals and the rates that give
    /// BPCER20 and BPCER10 their names are no results.
    fn naked_percentages(text: &str) -> Vec<String> {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let stands = |rest: &str| {
            let Some(inside) = rest.strip_prefix(" (").and_then(|rest| rest.split(')').next())
            else {
                return false;
            };
            let Some((counts, interval)) = inside.split_once("; ") else { return false };
            let counts = counts.strip_prefix("mean of ").unwrap_or(counts);
            let counted = counts.split(" and ").all(|one| {
                one.split_once(" of ").is_some_and(|(count, n)| is_digits(count) && is_digits(n))
            });
            let bounds = interval.split_once('–');
            counted
                && bounds.is_some_and(|(low, high)| {
                    low.parse::<f64>().is_ok() && high.parse::<f64>().is_ok()
                })
        };
        let named = ["be 5 ", "or 10 ", "interval at 95 "];
        text.match_indices('%')
            .filter(|(at, _)| !stands(&text[at + 1..]))
            .filter(|(at, _)| !named.iter().any(|name| text[..*at].ends_with(name)))
            .map(|(at, _)| text[..at].chars().rev().take(20).collect::<String>())
            .map(|before| before.chars().rev().collect())
            .collect()
    }

    #[test]
    fn exempted_rules_are_said_aloud_and_a_camera_judges_a_face_alone() {
        let data = painted();
        paint(data.path(), "bona-fide/two", &[]);
        let two = [Face::live(1).at(20, 140, 200), Face::live(2).at(250, 140, 190)];
        let file = picture::encode_jpeg(&scripted::picture_of(&two), 95);
        fs::write(data.path().join("bona-fide/two/0.jpg"), file).unwrap();
        let reason = |rules, path: &str| {
            let (finished, page) = evaluate(data.path(), rules, &scripted::pack()).unwrap();
            assert_eq!(page.contains("were exempted"), rules == RuleSet::AnySize);
            let pictures = finished.json["pictures"].as_array().unwrap().clone();
            let found = pictures.iter().find(|p| p["path"] == path).unwrap();
            found["reason"].clone()
        };
        let (two, small) = ("bona-fide/two/0.jpg", "bona-fide/near/04.jpg");
        assert_eq!(reason(RuleSet::Posted, two), "TOO_MANY_FACES");
        assert_eq!(reason(RuleSet::Camera, two), Value::Null);
        assert_eq!(reason(RuleSet::Posted, small), "FACE_TOO_SMALL");
        assert_eq!(reason(RuleSet::AnySize, small), Value::Null);
    }

    #[test]
    fn without_a_liveness_model_nothing_is_judged() {
        let data = painted();
        let pack = Pack { pad: Vec::new(), ..scripted::pack() };
        let error = evaluate(data.path(), RuleSet::Posted, &pack).err().unwrap();
        assert!(error.is::<NoLivenessModel>());
        let text = error.to_string();
        assert!(text.contains("LICENSE_ERROR") && text.contains("models install"), "{text}");
        let empty = tempfile::tempdir().unwrap();
        let error = evaluate(empty.path(), RuleSet::Posted, &pack).err().unwrap();
        assert!(error.is::<UsageError>(), "the folder is looked at first: {error}");
    }

    #[test]
    fn a_report_that_cannot_be_written_is_found_before_a_network_is_loaded() {
        let data = painted();
        let out = data.path().join("bona-fide/notes.txt");
        let error = run(&Options {
            data: data.path(),
            out: &out,
            rules: RuleSet::Posted,
            info: &info(&scripted::pack()),
            make: &|| panic!("a network is loaded"),
        })
        .err()
        .unwrap();
        let text = format!("{error:#}");
        assert!(text.starts_with(&format!("the report cannot be written to {}: ", out.display())));
    }

    /// One face that only the second look finds: no frame of a camera gets that look.
    #[test]
    fn a_camera_judges_by_the_first_look_alone() {
        let pack = scripted::pack();
        let mut recognizer = Recognizer::load(&pack, &ScriptedLoader::default(), 1).unwrap();
        let far = scripted::picture_sized(1920, 1080, &[Face::live(1).at(900, 500, 24)]);
        let first = recognizer.detect_near(&far).unwrap().len();
        let both = recognizer.detect(&far).unwrap().len();
        assert_eq!((first, both), (0, 1), "the picture tells the two apart");
        let reason = |rules: RuleSet, own: &mut Recognizer| rules.check(own, &far).report.failure;
        assert_eq!(reason(RuleSet::Camera, &mut recognizer), Some(LivenessReason::FaceNotFound));
        assert_ne!(reason(RuleSet::Posted, &mut recognizer), Some(LivenessReason::FaceNotFound));
    }

    #[test]
    fn a_folder_that_is_mostly_damaged_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        paint(dir.path(), "attack", &[Face::attack(1), Face::attack(1)]);
        for name in ["a.jpg", "b.jpg"] {
            fs::write(dir.path().join("attack").join(name), "text").unwrap();
        }
        evaluate(dir.path(), RuleSet::Posted, &scripted::pack()).unwrap();
        fs::write(dir.path().join("attack/c.jpg"), []).unwrap();
        let error = evaluate(dir.path(), RuleSet::Posted, &scripted::pack()).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("3 of 5") && text.contains("attack/c.jpg"), "{text}");
    }

    /// A network that breaks is a non-response, of which the report tells.
    #[test]
    fn a_network_that_fails_lets_nobody_through() {
        let data = painted();
        let out = tempfile::tempdir().unwrap();
        let pack = scripted::pack();
        for broken in [scripted::DETECTOR, scripted::ATTACK_DETECTOR] {
            let loader = ScriptedLoader::failing(broken);
            let json = run(&Options {
                data: data.path(),
                out: out.path(),
                rules: RuleSet::Posted,
                info: &info(&pack),
                make: &|| Ok(Recognizer::load(&pack, &loader, 1)?),
            })
            .unwrap()
            .json;
            assert_eq!(json["apcer"]["screen"]["rate"], Value::Null, "{broken}");
            let reasons = &json["apcer"]["screen"]["reasons"];
            assert_eq!(reasons["UNKNOWN_ERROR"]["count"], 20, "{broken}: {reasons}");
            assert_eq!(json["bpcer"]["accepted"]["count"], 0, "{broken}");
        }
    }
}
