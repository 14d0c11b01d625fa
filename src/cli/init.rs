//! `facelatch init`: a fresh device made ready without a screen.
//!
//! Everything is made by the code of the daemon's first start, and nothing is made twice: a second
//! run says what is there. Run by root it writes the configuration and then goes on as the daemon's
//! user, so the store belongs to whoever will open it.

use std::fs;
use std::io;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tempfile::NamedTempFile;

use crate::board::BoardKind;
use crate::board::sysfs;
use crate::cli::api::NoDevice;
use crate::cli::client::LocalClient;
use crate::cli::output::InternalError;
use crate::cli::output::UsageError;
use crate::cli::output::line;
use crate::clock::Clock as _;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::config::check;
use crate::config::raw;
use crate::config::raw::DEFAULT_FILE;
use crate::daemon::assembly;
use crate::daemon::assembly::Surroundings;
use crate::daemon::claim;
use crate::daemon::claim::Claim;
use crate::telemetry::Metrics;
use crate::web::tls;

/// Where the package puts the profiles of boards.
const PROFILES_DIR: &str = "/usr/share/facelatch/profiles";
/// The configuration that the package installs: nothing in it is anybody's own.
const PACKAGED: &str = include_str!("../../cross/facelatch.toml");
/// The configuration where no profile is installed.
const WITHOUT_PROFILES: &str =
    "# Every key has a default; `facelatch check` says what they mean.\n";
/// The user that the package makes for the daemon.
const DAEMON_USER: &str = "facelatch";
/// Most bytes of a profile.
const PROFILE_BYTES_MAX: u64 = 64 << 10;

/// Arguments of `facelatch init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Profile for a configuration that is not there yet [default: by the board]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// What people call the device, written into a new configuration
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Replace a configuration that is there; the old one is kept beside it as FILE.old
    #[arg(long)]
    force: bool,
    /// Folder of the profiles
    #[arg(long, value_name = "DIR", default_value = PROFILES_DIR)]
    profiles: PathBuf,
    /// The configuration has been seen to, by the process that started this one
    #[arg(long, hide = true)]
    store_only: bool,
}

/// Writes the configuration if there is none, or only the packaged one, or if it is to be replaced.
pub fn configure(args: &InitArgs, file: Option<&Path>) -> anyhow::Result<()> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let shown = path.display();
    if args.store_only {
        return Ok(());
    }
    let there = match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| shown.to_string()),
    };
    let is_own = there.as_ref().is_some_and(|bytes| bytes != PACKAGED.as_bytes());
    if is_own && !args.force {
        line(format!("configuration  {shown} is there and stays; --force replaces it"));
        return Ok(());
    }
    let (profile, text) = profile(args)?;
    let text = match &args.name {
        Some(name) => named(&text, name),
        None => text,
    };
    // What is written must be meant: a profile, or a name, that cannot be is refused before.
    check::config(&profile, raw::read(&profile, &text, std::iter::empty())?)?;
    if is_own {
        let kept = path.with_extension("toml.old");
        fs::copy(path, &kept).with_context(|| kept.display().to_string())?;
    }
    write(path, &text).with_context(|| format!("{shown} cannot be written; run it as root"))?;
    line(format!(
        "configuration  {shown} is written, profile `{profile}`; a running daemon takes it at its \
         next start"
    ));
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut file = NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    // It holds no secret, and people and the daemon's user are to read it.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(dir)?.sync_all()
}

/// Name and text of the profile that was asked for, else of the board's, else of the generic one.
fn profile(args: &InitArgs) -> anyhow::Result<(String, String)> {
    if let Some(name) = &args.profile {
        let text = read_profile(&args.profiles, name)?.ok_or_else(|| {
            let known = known_profiles(&args.profiles).join(", ");
            let dir = args.profiles.display();
            UsageError(format!("there is no profile `{name}` in {dir}; there are: {known}"))
        })?;
        return Ok((name.clone(), text));
    }
    let board = sysfs::identify(Path::new("/"));
    for kind in [board.kind, BoardKind::Generic] {
        if let Some(text) = read_profile(&args.profiles, kind.word())? {
            return Ok((kind.word().to_string(), text));
        }
    }
    Ok(("none".into(), WITHOUT_PROFILES.into()))
}

fn read_profile(dir: &Path, name: &str) -> anyhow::Result<Option<String>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return Ok(None);
    }
    let path = dir.join(format!("{name}.toml"));
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
        Ok(found) if found.len() > PROFILE_BYTES_MAX => {
            anyhow::bail!("{} has over {PROFILE_BYTES_MAX} bytes", path.display());
        }
        Ok(_) => {}
    }
    fs::read_to_string(&path).map(Some).with_context(|| path.display().to_string())
}

fn known_profiles(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let paths = entries.map(|entry| entry.path());
    let tables = paths.filter(|path| path.extension().is_some_and(|own| own == "toml"));
    let mut names: Vec<String> =
        tables.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())).collect();
    names.sort();
    names
}

/// The configuration with the device's name in it, its comments untouched.
fn named(text: &str, name: &str) -> String {
    let entry = format!("name = {}", toml::Value::String(name.to_string()));
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    let is_header = |line: &String| line.trim_start().starts_with('[');
    let Some(device) = lines.iter().position(|line| line.trim() == "[device]") else {
        return format!("[device]\n{entry}\n\n{text}");
    };
    let end = lines[device + 1..].iter().position(is_header);
    let end = end.map_or(lines.len(), |after| device + 1 + after);
    let is_name = |line: &String| {
        line.trim_start()
            .strip_prefix("name")
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    match lines[device..end].iter().position(is_name) {
        Some(at) => lines[device + at] = entry,
        None => lines.insert(device + 1, entry),
    }
    lines.join("\n") + "\n"
}

/// Makes what is missing of store, key, certificate and first admin key, and prints the claim.
pub fn run(args: &InitArgs, file: Option<&Path>, config: &Config) -> anyhow::Result<ExitCode> {
    let dir = &config.store.dir;
    if rustix::process::geteuid().is_root()
        && !args.store_only
        && let Some((user, group)) = owner(dir)?
    {
        return Err(go_on_as((user, group), file));
    }
    if LocalClient::connect(dir)?.is_some() {
        line(format!("store          {} is in use by the running daemon", dir.display()));
        say_where_the_key_is(dir);
        return Ok(ExitCode::SUCCESS);
    }
    let existed = dir.join("facelatch.redb").exists();
    let surroundings = Surroundings {
        status: Arc::new(NoDevice),
        metrics: Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"))),
    };
    let assembly = assembly::assemble_without_models(config, surroundings)?;
    let state = if existed { "is there" } else { "is made" };
    line(format!("store          {} {state}", dir.display()));
    let http = &config.http;
    let fingerprint = if http.tls {
        let identity = tls::load(http.certificate.as_ref(), dir, http.listen, SystemClock.utc())?;
        line(format!("certificate    {}", identity.certificate_file.display()));
        Some(identity.fingerprint)
    } else {
        None
    };
    let claim = Claim::of(config, http.listen, fingerprint)?;
    claim::forget_revoked(dir, &assembly.roster);
    let Some(first) = claim.make_first_key(&assembly.roster)? else {
        say_where_the_key_is(dir);
        line(format!("\n{}", claim.text(None).as_str()));
        return Ok(ExitCode::SUCCESS);
    };
    match &first.file {
        Ok(path) => line(format!("claim file     {} is written", path.display())),
        Err(error) => line(format!("claim file     cannot be written: {error}")),
    }
    // A terminal forgets. Anything else may be kept: the journal, cloud-init's log, a pipeline.
    if io::stdout().is_terminal() || first.file.is_err() {
        line(format!("\n{}", claim.text(Some((&first.record.id, &first.key))).as_str()));
    } else {
        line("first key      in the claim file alone: this output is no terminal, and may be kept");
        line(format!("\n{}", claim.text(None).as_str()));
    }
    if io::stdout().is_terminal() {
        line("Start it: systemctl enable --now facelatch");
    }
    Ok(ExitCode::SUCCESS)
}

fn say_where_the_key_is(dir: &Path) {
    line(match claim::waiting_key_id(dir) {
        Some(id) => {
            format!("first key      {id} waits in {}", claim::claim_file(dir).display())
        }
        None => {
            "first key      made before; `facelatch key add --scope admin` makes another".into()
        }
    });
}

/// Who is to own the store when root prepares it: the owner of its directory, which is made for the
/// daemon's user if there is none. `None`: root itself, as in a container.
fn owner(dir: &Path) -> anyhow::Result<Option<(u32, u32)>> {
    let shown = || dir.display().to_string();
    let daemon = daemon_user(&fs::read_to_string("/etc/passwd").unwrap_or_default());
    let found = match fs::metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(daemon) = daemon else { return Ok(None) };
            make_store_dir(dir).with_context(shown)?;
            std::os::unix::fs::chown(dir, Some(daemon.0), Some(daemon.1)).with_context(shown)?;
            return Ok(Some(daemon));
        }
        Err(error) => return Err(error).with_context(shown),
    };
    if found.uid() != 0 {
        return Ok(Some((found.uid(), found.gid())));
    }
    let is_empty = fs::read_dir(dir).with_context(shown)?.next().is_none();
    let Some(daemon) = daemon.filter(|_| is_empty) else { return Ok(None) };
    std::os::unix::fs::chown(dir, Some(daemon.0), Some(daemon.1)).with_context(shown)?;
    Ok(Some(daemon))
}

/// The store's directory is private; what is made above it lets the daemon's user through, whatever
/// root's own mask is.
fn make_store_dir(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir
        .ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().is_empty())
        .take_while(|parent| !parent.exists())
        .collect();
    for parent in missing.into_iter().rev() {
        fs::create_dir(parent)?;
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755))?;
    }
    fs::DirBuilder::new().mode(0o700).create(dir)
}

/// User and group number of the daemon's user in the text of `/etc/passwd`.
fn daemon_user(passwd: &str) -> Option<(u32, u32)> {
    let mut entries = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries.find(|entry| entry.first() == Some(&DAEMON_USER))?;
    Some((entry.get(2)?.parse().ok()?, entry.get(3)?.parse().ok()?))
}

/// Starts this command anew in this process, as another user; answers why that is refused.
fn go_on_as((user, group): (u32, u32), file: Option<&Path>) -> anyhow::Error {
    // By this name the program is found even where that user may not look.
    let mut again = Command::new("/proc/self/exe");
    again.args(["init", "--store-only"]).uid(user).gid(group);
    if let Some(file) = file {
        again.arg("--config").arg(file);
    }
    let error = again.exec();
    InternalError(format!("cannot go on as user {user}: {error}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_goes_into_its_section_and_comments_stay() {
        let meant = |text: &str| {
            let raw = raw::read("", text, std::iter::empty()).unwrap();
            check::config("", raw).unwrap()
        };
        let texts = [
            "",
            PACKAGED,
            "# a board\n[http]\ntls = true\n",
            "# a board\n[device]\n# what people read\nname = \"Old\"\n[[camera]]\nname = \"front\"\n",
            "[device]\n[[camera]]\nname = \"front\"\n",
        ];
        for text in texts {
            for name in ["Side door", "\"; tls = false\n[x]", "Tür 1"] {
                if name.contains('\n') {
                    let raw = raw::read("", &named(text, name), std::iter::empty()).unwrap();
                    assert_eq!(raw.device.name, name, "nothing but a name");
                    continue;
                }
                let with = named(text, name);
                let config = meant(&with);
                assert_eq!(config.device.name, name, "{with}");
                assert!(config.cameras.iter().all(|camera| camera.name == "front"), "{with}");
                let comments = |text: &str| text.matches('#').count();
                assert_eq!(comments(&with), comments(text));
            }
        }
    }

    #[test]
    fn the_daemons_user_is_found_among_others() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nfacelatchx:x:1:1::/:/x\n\
                      facelatch:x:993:992::/var/lib/facelatch:/usr/sbin/nologin\n";
        assert_eq!(daemon_user(passwd), Some((993, 992)));
        for none in ["", "facelatch", "facelatch:x:many:1::", "root:x:0:0::/root:/bin/sh"] {
            assert_eq!(daemon_user(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_made_above_the_store_lets_the_daemon_through() {
        let top = tempfile::tempdir().unwrap();
        let store = top.path().join("srv/doors/store");
        make_store_dir(&store).unwrap();
        let mode = |dir: &Path| fs::metadata(dir).unwrap().permissions().mode() & 0o777;
        let modes: Vec<u32> = store.ancestors().take(3).map(mode).collect();
        assert_eq!(modes, [0o700, 0o755, 0o755]);
    }

    #[test]
    fn a_profile_is_a_plain_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("generic.toml"), "").unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/other.toml"), "").unwrap();
        assert_eq!(read_profile(dir.path(), "generic").unwrap().as_deref(), Some(""));
        for none in ["", "absent", "below/other", "../generic", "generic\0"] {
            assert_eq!(read_profile(dir.path(), none).unwrap(), None, "{none:?}");
        }
        assert_eq!(known_profiles(dir.path()), ["generic"]);
    }
}
