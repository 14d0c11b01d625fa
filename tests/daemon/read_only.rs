//! A root file system that is read-only: the daemon writes below `store.dir` and nowhere else.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::broker::program;
use crate::support::client::enrolment;
use crate::support::{Daemon, Home, People, Setting, message, nobody};

/// Somebody who comes and goes, as in front of a door.
const CAMERA: &str = r#"
[[camera]]
name = "front"
source = "replay:{home}/pictures"
fps = 3
collection = "staff"
cooldown_s = 1
"#;

/// Makes all that this process sees read-only, the folder `$1` and the kernel's own tables in /proc
/// excepted, holds that to a try, and becomes the rest of its words.
const READ_ONLY: &str = r#"
store=$1; home=$2; shift 2
mount --bind "$store" "$store"
# As in the table itself: a blank in a path is written \040 there.
kept=$(printf '%s' "$store" | sed 's/ /\\040/g')
cut -d' ' -f2 /proc/self/mounts | while read -r point; do
  case $point in /proc|/proc/*|"$kept") continue ;; esac
  mount -o remount,bind,ro "$(printf '%b' "$point")"
done
for place in "$home" /tmp /var/tmp /etc /dev/shm /run; do
  [ -d "$place" ] || continue
  if (: > "$place/facelatch-probe") 2>/dev/null; then
    echo "$place can still be written" >&2; rm -f "$place/facelatch-probe"; exit 98
  fi
done
exec "$@"
"#;

/// Calls that change a file's name, content or rights; of `open` and its kin those that may write.
const CHANGING: [&str; 14] = [
    "chmod", "fchmodat", "chown", "lchown", "fchownat", "link", "linkat", "mkdir", "mkdirat",
    "mknod", "rename", "renameat", "symlink", "truncate",
];

fn home_with_camera(people: &People) -> Home {
    let home = Home::with(Setting { more: CAMERA.into(), ..Setting::default() });
    let pictures = home.path("pictures");
    fs::create_dir(&pictures).unwrap();
    fs::create_dir(home.path("store")).unwrap();
    fs::copy(people.file(0, 0), pictures.join("0.jpg")).unwrap();
    fs::write(pictures.join("1.jpg"), nobody()).unwrap();
    fs::write(pictures.join("2.jpg"), nobody()).unwrap();
    home
}

/// Enrolment by HTTP, a search, an event from the camera, a stop.
fn a_day(daemon: Daemon, people: &People) {
    daemon.client.create("staff");
    let picture = people.picture(0, 0);
    daemon.client.call("PUT /person", &enrolment("staff", "p0", &picture, "StoreThumbnails")).ok();
    assert_eq!(daemon.client.search("staff", &people.picture(0, 1)), ["p0"]);
    let seen = daemon.process.wait_for("an event of somebody who is known", |line| {
        message(line) == "event" && line.contains("\"match\"")
    });
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert!(seen["seq"].as_u64() > Some(0), "{seen}");
    daemon.stop();
}

/// The command in a mount namespace of its own, in which only the store can be written.
fn read_only(home: &Home) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", READ_ONLY, "sh"]);
    command.arg(home.path("store")).arg(home.path(""));
    running_the_daemon(command, home)
}

/// The daemon's own command line and environment behind the words of another program.
fn running_the_daemon(mut command: Command, home: &Home) -> Command {
    let inner = home.command(&["run"]);
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(home.path(""));
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// What keeps this machine from making a file system read-only for one process, if anything does.
fn hindrance() -> Option<String> {
    let tried = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    match tried {
        Ok(ended) if ended.status.success() => None,
        Ok(ended) => Some(String::from_utf8_lossy(&ended.stderr).trim().to_string()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

#[test]
fn everything_but_the_store_may_be_read_only() {
    let test = "everything_but_the_store_may_be_read_only";
    if let Some(hindrance) = hindrance() {
        eprintln!("SKIPPED {test}: needs root and mounts ({hindrance})");
        return;
    }
    let people = People::drawn(test);
    let home = home_with_camera(&people);
    let daemon = home.start_as(read_only(&home));
    assert!(daemon.shown_key.is_some(), "a first start");
    a_day(daemon, &people);
    // What was written is found again, by a daemon that is under the same restriction.
    let daemon = home.start_as(read_only(&home));
    assert_eq!(daemon.client.search("staff", &people.picture(0, 1)), ["p0"]);
    daemon.stop();
}

/// The paths of a line of strace that the call wanted to change.
fn changed(line: &str) -> Vec<&str> {
    let Some((call, words)) = line.split_once('(') else { return Vec::new() };
    let call = call.rsplit(' ').next().unwrap_or(call);
    let opens = ["open", "openat", "openat2"].contains(&call)
        && ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| words.contains(flag));
    if !opens && !CHANGING.contains(&call) && !call.starts_with("unlink") && call != "creat" {
        return Vec::new();
    }
    words.split('"').skip(1).step_by(2).collect()
}

/// Only the store, and devices and tables of the kernel, which are no files on a medium.
fn may_change(path: &str, store: &Path) -> bool {
    Path::new(path).starts_with(store)
        || (path.starts_with("/dev/") && !path.starts_with("/dev/shm"))
        || path.starts_with("/proc/")
}

#[test]
fn no_file_outside_the_store_is_opened_for_writing() {
    let test = "no_file_outside_the_store_is_opened_for_writing";
    let Some(strace) = program(test, "strace") else { return };
    let people = People::drawn(test);
    let home = home_with_camera(&people);
    let trace = home.path("trace");
    let mut command = Command::new(strace);
    // -D: the daemon stays our child, and signals reach it.
    command.args(["-D", "-f", "-qq", "-s", "4096", "-e", "trace=%file", "-e", "signal=none", "-o"]);
    command.arg(&trace);
    a_day(home.start_as(running_the_daemon(command, &home)), &people);

    let trace = fs::read_to_string(&trace).unwrap();
    let store = home.path("store");
    let all: Vec<&str> = trace.lines().flat_map(changed).collect();
    assert!(all.iter().any(|path| path.ends_with("facelatch.redb")), "the trace shows no store");
    let elsewhere: Vec<_> = all.iter().filter(|path| !may_change(path, &store)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

#[test]
fn lines_of_strace_are_told_apart() {
    let table: [(&str, &[&str]); 6] = [
        (r#"12 openat(AT_FDCWD, "/etc/hosts", O_RDONLY|O_CLOEXEC) = 3"#, &[]),
        (r#"12 openat(AT_FDCWD, "/a", O_RDWR|O_CREAT, 0600) = 3"#, &["/a"]),
        (r#"12 rename("/a", "/b") = 0"#, &["/a", "/b"]),
        (r#"12 unlinkat(AT_FDCWD, "/a", 0) = -1 EROFS"#, &["/a"]),
        (r#"12 statx(AT_FDCWD, "/a", AT_STATX_SYNC_AS_STAT, STATX_ALL) = 0"#, &[]),
        ("12 +++ exited with 0 +++", &[]),
    ];
    for (line, paths) in table {
        assert_eq!(changed(line), paths, "{line}");
    }
    let store = Path::new("/var/lib/facelatch");
    for (path, allowed) in [
        ("/var/lib/facelatch/facelatch.redb", true),
        ("/var/lib/facelatch-other", false),
        ("/dev/null", true),
        ("/dev/shm/x", false),
        ("relative", false),
    ] {
        assert_eq!(may_change(path, store), allowed, "{path}");
    }
}
