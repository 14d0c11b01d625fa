//! Watches a file that holds one digit, such as the level of a simulated GPIO line, and prints each
//! change with the seconds since the system started: `line_watch FILE STEP_MS`.
//!
//! Compiled by itself (`rustc line_watch.rs`); looking every millisecond costs less than a shell
//! does in a second.

use std::io::Write;
use std::{env, fs, process, thread, time::Duration, time::Instant};

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let [file, step_ms] = words.as_slice() else {
        eprintln!("usage: line_watch FILE STEP_MS");
        process::exit(2);
    };
    let step = Duration::from_millis(step_ms.parse().expect("STEP_MS is a number"));
    let uptime = fs::read_to_string("/proc/uptime").expect("the time since the system started");
    let first = uptime.split(' ').next().and_then(|text| text.parse().ok());
    let (first, start): (f64, _) = (first.expect("seconds"), Instant::now());
    let (mut last, mut latest) = (String::new(), start);
    loop {
        let level = fs::read_to_string(file).unwrap_or_else(|_| "gone".to_owned());
        let level = level.trim();
        let late_ms = latest.elapsed().as_millis();
        latest = Instant::now();
        if level != last {
            let at = first + start.elapsed().as_secs_f64();
            // How long nobody looked: a change may be so much older, or a pulse so long unseen.
            println!("{at:.3} {level} {late_ms}");
            std::io::stdout().flush().expect("somebody reads");
            level.clone_into(&mut last);
        }
        thread::sleep(step);
    }
}
