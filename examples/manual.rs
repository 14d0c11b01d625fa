//! Writes the manual pages and the shell completions of `facelatch` into a folder.
//!
//! `cargo run --example manual -- FOLDER` makes `FOLDER/man1/facelatch*.1`, one page a command, and
//! `FOLDER/{bash,zsh,fish}/`. They come from the description that parses the command line, so they
//! cannot name an option that does not exist.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::Shell;

/// Each shell, and the folder for its completions.
const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: manual FOLDER");
        return ExitCode::from(64);
    };
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let pages = folder.join("man1");
    fs::create_dir_all(&pages)?;
    // `help` has no page of its own: every command has `--help`, and one page each is enough.
    let command = facelatch::cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command.clone(), &pages)?;
    for (shell, name) in SHELLS {
        let place = folder.join(name);
        fs::create_dir_all(&place)?;
        clap_complete::generate_to(shell, &mut command.clone(), "facelatch", &place)?;
    }
    Ok(())
}
