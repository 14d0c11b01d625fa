//! The report of `facelatch eval identity`.

use std::fmt::Write as _;
use std::fs;

use anyhow::Context;
use serde_json::Value;
use serde_json::json;

use crate::eval::identity::Measured;
use crate::eval::identity::Options;
use crate::eval::identity::Row;
use crate::eval::identity::attempts::Tally;
use crate::eval::identity::rate;
use crate::eval::identity::walk::FRAMES_PER_SECOND;
use crate::eval::rate::Rate;

/// Writes `report.json` and `report.md`; answers the former.
pub fn write(options: &Options<'_>, measured: &Measured) -> anyhow::Result<Value> {
    let json = json(options, measured);
    fs::create_dir_all(options.out).with_context(|| options.out.display().to_string())?;
    for (name, text) in
        [("report.json", format!("{json:#}\n")), ("report.md", markdown(options, measured)?)]
    {
        let file = options.out.join(name);
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(json)
}

fn json(options: &Options<'_>, measured: &Measured) -> Value {
    let correlation = &measured.correlation;
    let of_means: Vec<Value> = correlation
        .of_means
        .iter()
        .map(|(frames, chance, r)| json!({"frames": frames, "chance": chance, "correlation": r}))
        .collect();
    json!({
        "embedding": options.embedding,
        "strangers": measured.strangers,
        "strangers_under_another_name": measured.doubles,
        "usable_frames": rate(measured.usable).json(),
        "correlation": {
            "visits": correlation.visits, "pairs": correlation.pairs, "mean": correlation.mean,
            "of_means": of_means, "greatest": correlation.greatest(),
            "manifest": options.info.tail.correlation(),
        },
        "rows": measured.rows.iter().map(row_json).collect::<Vec<_>>(),
    })
}

fn row_json(row: &Row) -> Value {
    json!({
        "people": row.people, "galleries": row.draws, "asked": row.asked,
        "supported": row.supported,
        "false_positives": rate(row.false_positives).json(),
        "false_positives_real_pictures": rate(row.false_positives_real).json(),
        "fixed_cosine": row.fixed_cosine,
        "sequential": tally_json(&row.sequential), "fixed": tally_json(&row.fixed),
        "fixed_for_all": tally_json(&row.fixed_for_all),
        "false_positives_for_all": rate(row.false_positives_for_all).json(),
        "sequential_real_pictures": tally_json(&row.sequential_real),
        "fixed_real_pictures": tally_json(&row.fixed_real),
    })
}

fn tally_json(tally: &Tally) -> Value {
    let (mean, error) = tally.mean_frames();
    json!({
        "visits": tally.visits,
        "denied": Rate::of(tally.denied, tally.visits).json(),
        "wrong": Rate::of(tally.wrong, tally.visits).json(),
        "frames_mean": mean, "frames_standard_error": error,
        "milliseconds": [milliseconds(tally, 0.5), milliseconds(tally, 0.95)],
    })
}

fn milliseconds(tally: &Tally, share: f64) -> f64 {
    (tally.elapsed_at(share) * 1000.0 / FRAMES_PER_SECOND).round()
}

fn markdown(options: &Options<'_>, measured: &Measured) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "# The sequential identity decision: `{}`\n", options.embedding)?;
    writeln!(
        out,
        "{} strangers ({} left out, enrolled under another name); a face in {} of the frames.\n",
        measured.strangers,
        measured.doubles,
        rate(measured.usable)
    )?;
    correlation(&mut out, options, measured)?;
    writeln!(
        out,
        "## Strangers\n\nAccepted as anybody, by attempts; intervals 95 %, Clopper–Pearson.\n"
    )?;
    writeln!(
        out,
        "| people | asked | synthetic visits | visits of real pictures |\n|---|---|---|---|"
    )?;
    for row in &measured.rows {
        let supported = if row.supported { "" } else { " (not supported)" };
        writeln!(
            out,
            "| {} | {:.0e}{supported} | {} | {} |",
            row.people,
            row.asked,
            rate(row.false_positives),
            rate(row.false_positives_real)
        )?;
    }
    let synthetic: [Rule; 3] = [
        ("sequential", |row| &row.sequential),
        ("fixed", |row| &row.fixed),
        ("fixed, one for all sizes", |row| &row.fixed_for_all),
    ];
    enrolled(&mut out, "synthetic visits", measured, &synthetic)?;
    let real: [Rule; 2] =
        [("sequential", |row| &row.sequential_real), ("fixed", |row| &row.fixed_real)];
    enrolled(&mut out, "visits of real pictures", measured, &real)?;
    writeln!(out, "\nStrangers whom the one threshold for all sizes accepts:\n")?;
    writeln!(
        out,
        "| people | asked | cosine of the matched threshold | accepted by the one for all |\n|---|---|---|---|"
    )?;
    for row in &measured.rows {
        let accepted = rate(row.false_positives_for_all);
        writeln!(
            out,
            "| {} | {:.0e} | {:.3} | {accepted} |",
            row.people, row.asked, row.fixed_cosine
        )?;
    }
    Ok(out)
}

fn correlation(out: &mut String, options: &Options<'_>, measured: &Measured) -> std::fmt::Result {
    let found = &measured.correlation;
    writeln!(
        out,
        "## Correlation of the frames\n\n{} visits against others, {} pairs: {:.3} in the mean. \
         The manifest states {}.\n",
        found.visits,
        found.pairs,
        found.mean,
        options.info.tail.correlation()
    )?;
    writeln!(out, "| mean of frames | chance | correlation |\n|---|---|---|")?;
    for (frames, chance, r) in &found.of_means {
        writeln!(out, "| {frames} | {chance:.0e} | {r:.3} |")?;
    }
    writeln!(out)
}

/// A rule by its name, and where its tally lies.
type Rule = (&'static str, fn(&Row) -> &Tally);

fn enrolled(out: &mut String, kind: &str, measured: &Measured, rules: &[Rule]) -> std::fmt::Result {
    writeln!(
        out,
        "\n## Enrolled people, {kind}\n\nThe fixed threshold accepts as many of the same strangers. \
         Frames: mean until the right decision (standard error); milliseconds after the first \
         usable frame: median, 95th percentile.\n"
    )?;
    writeln!(
        out,
        "| people | asked | rule | frames | ms | false denials | false grants |\n|---|---|---|---|---|---|---|"
    )?;
    for row in &measured.rows {
        for (rule, tally) in rules {
            let tally = tally(row);
            let (mean, error) = tally.mean_frames();
            writeln!(
                out,
                "| {} | {:.0e} | {rule} | {mean:.2} ({error:.2}) | {}, {} | {} | {} |",
                row.people,
                row.asked,
                milliseconds(tally, 0.5),
                milliseconds(tally, 0.95),
                Rate::of(tally.denied, tally.visits),
                Rate::of(tally.wrong, tally.visits)
            )?;
        }
    }
    Ok(())
}
