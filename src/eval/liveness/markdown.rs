//! The report for people: `report.md`, and its rates for a terminal.
//!
//! Every share is a `Rate`, so that none stands without what it rests on.

use std::fmt;
use std::fmt::Write as _;

use crate::eval::extraction::workers;
use crate::eval::liveness::RuleSet;
use crate::eval::liveness::dataset::REFUSED;
use crate::eval::liveness::det::BpcerAt;
use crate::eval::liveness::report::OPERATING_POINT;
use crate::eval::liveness::report::Report;
use crate::eval::liveness::report::name;
use crate::eval::liveness::tally::Tally;
use crate::eval::liveness::tally::Who;
use crate::face::liveness::LivenessReason;

/// Most rows of a table; the JSON holds all.
const ROWS_MAX: usize = 50;

const WORDS: &str = "\
## What the words mean

By ISO/IEC 30107-3. A *response* is a word on liveness: bona fide, or attack (`FACE_NOT_LIVE`).

- **APCER**, attack presentation classification error rate: of the attacks of one species that got \
a response, the share classified as bona fide. Each species counts by itself, the worst first: \
whoever attacks chooses what works, so a mean over species would hide it.
- **BPCER**, bona fide presentation classification error rate: of the people who got a response, the \
share classified as attacks.
- **APNRR, BPNRR**, the non-response rates of attacks and bona fide presentations: of all, the share \
for which an image rule, the pose, the eyes, a covered face or an error ended the check before it \
had a word on liveness. A non-response opens no door: it is a refusal for another reason.
- **Let through, accepted**: of all, non-responses included, the share that passed the whole check. \
Of attacks it is what is left before anybody asks who it is; of people it is what they notice.
- **ACER**: the mean of the BPCER and of the worst species' APCER. ISO/IEC 30107-3:2023 dropped it, \
and a mean of two errors that cost so differently decides nothing; it stands here only for \
comparison with older reports.
- **BPCER20, BPCER10**: the BPCER where the threshold lets a species' APCER be 5 % or 10 %; \"too \
few\" where not one attack among those with a response would be that much.

A rate is followed by its count, by the number of trials, and by the Clopper–Pearson interval at \
95 %. The interval takes pictures for independent of one another. Frames of one recording are not: \
twenty of one print are little more than one print.
";

/// The whole of `report.md`.
pub fn page(report: &Report) -> Result<String, fmt::Error> {
    let mut out = String::new();
    head(report, &mut out)?;
    writeln!(out, "\n{WORDS}")?;
    writeln!(out, "## Rates\n")?;
    species(report, &mut out)?;
    groups(report, &mut out)?;
    acer(report, &mut out)?;
    operating_point(report, &mut out)?;
    writeln!(out, "## Why bona fide pictures were refused\n")?;
    reasons(&report.bona_fide, &mut out)?;
    writeln!(out, "## Why attacks were refused\n")?;
    reasons(&report.attacks, &mut out)?;
    cues(report, &mut out)?;
    refused(report, &mut out)?;
    time(report, &mut out)?;
    files(report, &mut out)?;
    out.truncate(out.trim_end().len());
    out.push('\n');
    Ok(out)
}

/// The rates alone.
pub fn summary(report: &Report) -> Result<String, fmt::Error> {
    let mut out = String::new();
    for (name, tally) in &report.species {
        writeln!(out, "attack {name}: APCER {}", tally.classified_bona_fide())?;
        writeln!(out, "  non-responses (APNRR) {}", tally.non_responses())?;
    }
    if report.bona_fide.presentations() > 0 {
        let own = &report.bona_fide;
        writeln!(out, "bona fide: BPCER {}", own.classified_attack())?;
        writeln!(out, "  non-responses (BPNRR) {}", own.non_responses())?;
        writeln!(out, "  accepted by the whole check {}", own.passed())?;
        for (reason, rate) in own.reasons() {
            writeln!(out, "  refused: {} {rate}", reason.code())?;
        }
    }
    for ((reason, kind), tally) in &report.refused {
        let found = tally.refused_for(*reason);
        writeln!(out, "{}/{kind}: refused for that reason {found}", reason.code())?;
        writeln!(out, "  accepted {}", tally.passed())?;
    }
    let unreadable = report.unreadable().count();
    if unreadable > 0 {
        writeln!(out, "{unreadable} pictures could not be read; the report names them")?;
    }
    Ok(out)
}

fn head(report: &Report, out: &mut String) -> fmt::Result {
    let (info, rules) = (report.options.info, report.options.rules);
    writeln!(out, "# Liveness: pack `{}`\n", cell(&info.pack))?;
    let of_reasons: u64 = report.refused.values().map(Tally::presentations).sum();
    writeln!(
        out,
        "facelatch {}. Bona fide pictures: {}, in {} groups. Attacks: {}, of {} species. Pictures \
         that have to be refused: {of_reasons}. Files that could not be read: {}.\n",
        env!("CARGO_PKG_VERSION"),
        report.bona_fide.presentations(),
        report.groups.len(),
        report.attacks.presentations(),
        report.species.len(),
        report.unreadable().count()
    )?;
    let said = match rules {
        RuleSet::Posted => "the image rules for posted pictures apply.",
        RuleSet::Camera => {
            "the image rules for camera frames apply; the largest face is judged as if it were \
             alone, as on a camera."
        }
        RuleSet::AnySize => {
            "**the rules on the size of the face, the distance of the pupils, the distance to the \
             border and on faces too close were exempted.** What follows is about the remaining \
             tests alone; a request or a camera refuses more."
        }
    };
    writeln!(out, "Rules `{}`: {said}", rules.name())
}

fn species(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "### Attacks, worst species first\n")?;
    if report.species.is_empty() {
        return writeln!(out, "No attacks were shown: there is no APCER.\n");
    }
    writeln!(out, "| species | APCER | APNRR | let through, of all | BPCER20 | BPCER10 |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for (name, tally) in report.species.iter().take(ROWS_MAX) {
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            cell(name),
            tally.classified_bona_fide(),
            tally.non_responses(),
            tally.passed(),
            at(report.bpcer_at(20, tally)),
            at(report.bpcer_at(10, tally))
        )?;
    }
    rest(report.species.len(), out)
}

fn at(found: BpcerAt) -> String {
    match found {
        BpcerAt::Rate(rate) => rate.to_string(),
        BpcerAt::TooFew => "too few".into(),
    }
}

fn groups(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "### Bona fide\n")?;
    if report.groups.is_empty() {
        return writeln!(out, "No bona fide pictures were shown: there is no BPCER.\n");
    }
    writeln!(out, "| group | BPCER | BPNRR | accepted, of all |\n|---|---|---|---|")?;
    let mut row = |name: &str, tally: &Tally| {
        let (error, none) = (tally.classified_attack(), tally.non_responses());
        writeln!(out, "| {name} | {error} | {none} | {} |", tally.passed())
    };
    row("**all**", &report.bona_fide)?;
    // One group is the sum.
    let shown = if report.groups.len() > 1 { ROWS_MAX } else { 0 };
    for (name, tally) in report.groups.iter().take(shown) {
        row(&cell(name), tally)?;
    }
    rest(report.groups.len(), out)
}

fn acer(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "### ACER\n")?;
    match (report.acer(), report.species.first()) {
        (Some(acer), Some((name, _))) => {
            writeln!(
                out,
                "{acer}, with the species {}; dropped by ISO/IEC 30107-3:2023.\n",
                cell(name)
            )
        }
        _ => writeln!(out, "None: it takes responses of both kinds.\n"),
    }
}

fn operating_point(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "## Operating point\n")?;
    writeln!(
        out,
        "The rates above are those of the pack's operating point: the threshold \
         {OPERATING_POINT} on the calibrated score, where the weakest cue about attacks just \
         passes. The cues' own limits:\n"
    )?;
    writeln!(out, "| cue | least score that passes |\n|---|---|")?;
    for (cue, (low, high)) in report.cues.limits() {
        let cue = name(cue);
        if low == high {
            writeln!(out, "| `{cue}` | {low:.4} |")?;
        } else {
            writeln!(out, "| `{cue}` | {low:.4} to {high:.4} |")?;
        }
    }
    writeln!(out, "\n![APCER over BPCER](det.svg)\n\n![Scores](scores.svg)\n")?;
    writeln!(
        out,
        "A circle on a DET curve is the operating point; an error that did not occur lies on the \
         edge. A check that ends at the first cue that fails knows only part of a low score, so \
         the curves are exact for thresholds at and above the operating point.\n"
    )
}

fn reasons(tally: &Tally, out: &mut String) -> fmt::Result {
    if tally.reasons().next().is_none() {
        return writeln!(out, "None was refused, of {}.\n", tally.presentations());
    }
    writeln!(out, "| reason | share of all |\n|---|---|")?;
    for (reason, rate) in tally.reasons() {
        writeln!(out, "| `{}` | {rate} |", reason.code())?;
    }
    writeln!(out)
}

fn cues(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "## What each cue contributes\n")?;
    writeln!(
        out,
        "Of the pictures for which a cue was measured: those that it refuses, and those that it \
         alone refuses, which would pass without it.\n"
    )?;
    writeln!(out, "| cue | attacks | attacks, alone | bona fide | bona fide, alone |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    let mut unsure = 0;
    for (cue, _) in report.cues.limits() {
        let of = |who| report.cues.contribution(cue, who);
        let (attack, bona_fide) = (of(Who::Attack), of(Who::BonaFide));
        unsure += attack.alone_unsure + bona_fide.alone_unsure;
        writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            name(cue),
            attack.refused,
            attack.alone,
            bona_fide.refused,
            bona_fide.alone
        )?;
    }
    if unsure > 0 {
        writeln!(
            out,
            "\nIn {unsure} of the pictures that one cue alone refuses, the check ended there and \
             other cues were not measured; they might have refused as well."
        )?;
    }
    writeln!(out)
}

fn refused(report: &Report, out: &mut String) -> fmt::Result {
    if report.refused.is_empty() {
        return Ok(());
    }
    writeln!(out, "## Pictures that have to be refused\n")?;
    writeln!(out, "| reason | kind | for that reason | for another | accepted |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for ((reason, kind), tally) in report.refused.iter().take(ROWS_MAX) {
        let named = |(other, count): (LivenessReason, u64)| format!(" `{}` {count}", other.code());
        let others: Vec<String> = tally.other_reasons(*reason).into_iter().map(named).collect();
        let colon = if others.is_empty() { "" } else { ":" };
        writeln!(
            out,
            "| `{}` | {} | {} | {}{colon}{} | {} |",
            reason.code(),
            cell(kind),
            tally.refused_for(*reason),
            tally.refused_otherwise(*reason),
            others.join(","),
            tally.passed()
        )?;
    }
    rest(report.refused.len(), out)?;
    writeln!(out, "From the folder `{REFUSED}/<REASON>/<kind>`; no part of the rates above.\n")
}

fn time(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, "## Time\n")?;
    let side_by_side = workers(report.dataset.pictures.len());
    match report.time {
        Some((median, pictures)) => writeln!(
            out,
            "A check that measured every cue took {median:.1} ms in the median of {pictures}, \
             without detection, with {side_by_side} at work side by side.\n"
        ),
        None => writeln!(out, "No check went as far as to measure a cue.\n"),
    }
}

fn files(report: &Report, out: &mut String) -> fmt::Result {
    let unreadable: Vec<_> = report.unreadable().collect();
    if !unreadable.is_empty() {
        let (count, all) = (unreadable.len(), report.dataset.pictures.len());
        writeln!(out, "## Files that could not be read\n")?;
        writeln!(
            out,
            "{count} of {all}; nothing was presented by them, so no rate counts them.\n"
        )?;
        writeln!(out, "| file | problem |\n|---|---|")?;
        for (name, problem) in unreadable {
            writeln!(out, "| {} | {} |", cell(name), cell(problem))?;
        }
        writeln!(out)?;
    }
    let left_out = &report.dataset.left_out;
    if !left_out.is_empty() {
        writeln!(out, "## Files that are not named as pictures\n")?;
        for name in left_out.iter().take(ROWS_MAX) {
            writeln!(out, "- {}", cell(name))?;
        }
        rest(left_out.len(), out)?;
    }
    Ok(())
}

/// Says how many rows a table does not show, and ends it.
fn rest(rows: usize, out: &mut String) -> fmt::Result {
    if rows > ROWS_MAX {
        writeln!(out, "\nAnd {} more, which `report.json` holds.", rows - ROWS_MAX)?;
    }
    writeln!(out)
}

/// A file's or folder's name within a table: no character of it may end a cell or a row.
fn cell(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.replace('\\', "\\\\").replace('|', "\\|").replace('`', "\\`")
}
