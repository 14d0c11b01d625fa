//! The files of backups: their names, how they come to be whole or not at all, how many are kept.
//!
//! The daemon writes a backup itself, always below `<store.dir>/backup`: it alone has the store open
//! and it may write nowhere else, so no path ever travels over its socket; streaming the backup to
//! the command instead would give it a second way to be cut short. A command that wants the file
//! elsewhere copies it from there and checks the digest on the way.
//!
//! A file gets its name when it is complete and on the medium, and no file is ever written over.
//! What a crash leaves has a name of its own and is removed by the next backup. Only files whose
//! names were made here are ever removed to make room; a file that somebody named is theirs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::clock::UtcTime;
use crate::store::StoreError;
use crate::store::archive;

/// Directory of backups in the store's directory.
pub const BACKUP_DIR_NAME: &str = "backup";
/// What a backup's name begins with when it was made here.
const PREFIX: &str = "facelatch-";
/// What every backup's name ends with.
const SUFFIX: &str = ".backup";
/// What the name of an unfinished one begins with.
const UNFINISHED_PREFIX: &str = ".facelatch-unfinished-";
/// Longest time that a database which was replaced or migrated is kept. Long enough to notice that
/// the new one does not do, and no longer: it holds people who were deleted since.
pub const REPLACED_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// A change in the future by more than this was noted by a clock that stood elsewhere.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3600);
/// Length of a [`stamp`].
const STAMP_BYTES: usize = 19;
/// Hex digits that tell the backups of one store from those of another.
const ID_DIGITS: usize = 8;

/// A backup whose name was made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFile {
    /// Where it is.
    pub path: PathBuf,
    /// When it was made, by its name.
    pub created: UtcTime,
    /// Its length.
    pub bytes: u64,
}

/// Where backups of a store lie unless somebody says otherwise.
pub fn default_dir(store_dir: &Path) -> PathBuf {
    store_dir.join(BACKUP_DIR_NAME)
}

/// A time as part of a file's name: no character that some file system does not take.
pub fn stamp(time: UtcTime) -> String {
    time.to_string().chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Name of a backup of a store that is made now.
pub fn file_name(id: &str, created: UtcTime) -> String {
    format!("{PREFIX}{id}-{}{SUFFIX}", stamp(created))
}

/// Whose backup has this name, and when it was made; `None` for a name that was not made here.
fn own_name(name: &str) -> Option<(&str, UtcTime)> {
    let (id, made) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-')?;
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((id, stamped(made)?)).filter(|_| is_id)
}

/// Whether a file's name was made here.
pub fn is_own_name(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).and_then(own_name).is_some()
}

/// The time of a [`stamp`].
fn stamped(stamp: &str) -> Option<UtcTime> {
    let is_stamp = stamp.len() == STAMP_BYTES && stamp.is_ascii();
    let (date, time) = is_stamp.then(|| (&stamp[..8], &stamp[9..18]))?;
    let text = format!(
        "{}-{}-{}T{}:{}:{}.{}Z",
        &date[..4],
        &date[4..6],
        &date[6..],
        &time[..2],
        &time[2..4],
        &time[4..6],
        &time[6..]
    );
    UtcTime::try_from(text).ok().filter(|time| self::stamp(*time) == stamp)
}

/// Makes the directory, for its owner alone, if it is missing; removes what a crash left in it.
pub fn prepare(dir: &Path) -> Result<(), StoreError> {
    let refused = |error: io::Error| not_made(dir, &error);
    if !dir.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refused)?;
        like_parent(&open_own(dir).map_err(refused)?, dir);
    }
    for entry in fs::read_dir(dir).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX) {
            fs::remove_file(entry.path()).map_err(refused)?;
        }
    }
    Ok(())
}

/// Writes a file that is there whole, and on the medium, or not at all; mode 0600. A file of that
/// name is left alone.
pub fn write<T>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let refused = |error: io::Error| not_made(path, &error);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unfinished = tempfile::Builder::new().prefix(UNFINISHED_PREFIX).tempfile_in(dir);
    let unfinished = unfinished.map_err(refused)?;
    let mut out = BufWriter::new(unfinished.as_file());
    let value = fill(&mut out).map_err(|error| match error {
        StoreError::Backup { what, reason, .. } => {
            StoreError::Backup { file: path.display().to_string(), what, reason }
        }
        other => other,
    })?;
    out.flush().map_err(refused)?;
    drop(out);
    unfinished.as_file().sync_all().map_err(refused)?;
    like_parent(unfinished.as_file(), unfinished.path());
    unfinished.persist_noclobber(path).map_err(|error| refused(error.error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(refused)?;
    Ok(value)
}

/// Refuses to begin what the medium has no room for: a backup, and the rewriting of the database
/// that the next deletion asks for.
pub fn require_room(dir: &Path, database_bytes: u64) -> Result<(), StoreError> {
    let room = rustix::fs::statvfs(dir).map_err(|error| not_made(dir, &error))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let needed = database_bytes.saturating_mul(2);
    if free >= needed {
        return Ok(());
    }
    let reason = format!(
        "the medium has {free} bytes left, and {needed} are needed, twice the database; remove \
         older backups or keep fewer (retention.backups_keep)"
    );
    Err(not_made(dir, &reason))
}

/// Opens what was made here, and not what somebody put in its place.
fn open_own(path: &Path) -> io::Result<File> {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(no_link).open(path)
}

/// Copies a backup, which is first found to be as it was written.
pub fn copy(from: &Path, to: &Path) -> Result<u64, StoreError> {
    let mut source = open_own(from).map_err(|error| not_made(to, &error))?;
    archive::check(&mut source).map_err(|error| not_made(from, &error))?;
    // The same file as was looked at, whatever has this name by now.
    source.rewind().map_err(|error| not_made(to, &error))?;
    write(to, |out| io::copy(&mut source, out).map_err(|error| not_made(to, &error)))
}

/// The backups of a directory whose names were made here, oldest first; none where there is no
/// directory.
pub fn list(dir: &Path) -> io::Result<Vec<BackupFile>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if let Some((_, created)) = name.to_str().and_then(own_name) {
            let bytes = entry.metadata()?.len();
            found.push(BackupFile { path: entry.path(), created, bytes });
        }
    }
    found.sort_by(|one, other| (one.created, &one.path).cmp(&(other.created, &other.path)));
    Ok(found)
}

/// Removes the oldest backups of a store in a directory until `keep` are left, but never `newest`,
/// which was made at `now`, nor those of another store; answers what went. Those that claim to come from the future go first: a clock that
/// once ran ahead must not crowd out what is made since.
pub fn rotate(
    dir: &Path,
    keep: usize,
    newest: &Path,
    now: UtcTime,
) -> Result<Vec<PathBuf>, StoreError> {
    let refused = |error: io::Error| not_made(dir, &error);
    let id_of = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        own_name(name).map(|(id, _)| id.to_string())
    };
    let own = id_of(newest);
    let mut others = list(dir).map_err(refused)?;
    others.retain(|file| id_of(&file.path) == own);
    let all = others.len();
    others.retain(|file| file.path != newest);
    others.sort_by_key(|file| (file.created <= now, file.created));
    let surplus = all.saturating_sub(keep.max(1));
    let mut removed = Vec::new();
    for file in others.into_iter().take(surplus) {
        fs::remove_file(&file.path).map_err(refused)?;
        removed.push(file.path);
    }
    Ok(removed)
}

/// Removes databases that a restore or a migration replaced more than [`REPLACED_KEPT`] ago; answers
/// what went. Their age is that of the file. One from the future begins to age now: the clock was
/// wrong then, and it would stay until that day.
pub fn remove_replaced(
    store_dir: &Path,
    database: &str,
    now: SystemTime,
) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for file in replaced(store_dir, database)? {
        let changed = fs::symlink_metadata(&file)?.modified()?;
        if changed > now + CLOCK_SLACK {
            let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            OpenOptions::new().write(true).custom_flags(no_link).open(&file)?.set_modified(now)?;
        }
        if now.duration_since(changed).is_ok_and(|age| age > REPLACED_KEPT) {
            fs::remove_file(&file)?;
            removed.push(file);
        }
    }
    Ok(removed)
}

/// Databases that a restore or a migration replaced, by name.
pub fn replaced(store_dir: &Path, database: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(store_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(database)?.strip_prefix('.'));
        if rest.is_some_and(is_replaced) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a database's name ends as that of one which was replaced: by a restore, by a migration,
/// or by the way back that the guide describes. A copy that somebody made has other names.
fn is_replaced(rest: &str) -> bool {
    let version = rest.strip_prefix("schema-").and_then(|rest| rest.strip_suffix(".bak"));
    let restored = rest.strip_suffix(".before-restore");
    rest == "newer.bak"
        || version
            .is_some_and(|version| version.splitn(2, '-').all(|part| part.parse::<u32>().is_ok()))
        || restored.and_then(stamped).is_some()
}

/// Root leaves nothing behind that the owner of the directory could not read: a command run with
/// `sudo` must not lock the daemon out of its own files. Where it cannot be done, the daemon says
/// what it cannot read.
///
/// `file` is what was made, and `path` where: by its name alone the owner of the directory could
/// have root hand over any other file.
pub fn like_parent(file: &File, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(owner) = fs::metadata(parent) {
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

fn not_made(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    let reason = error.to_string();
    StoreError::Backup { file: path.display().to_string(), what: "made", reason }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(days: i64) -> UtcTime {
        UtcTime::from_millis(1_700_000_000_123 + days * 86_400_000)
    }

    fn put(dir: &Path, days: i64) -> PathBuf {
        let path = dir.join(file_name("0123abcd", at(days)));
        write(&path, |out| out.write_all(b"x").map_err(|error| not_made(&path, &error))).unwrap();
        path
    }

    fn days(dir: &Path) -> Vec<i64> {
        let day = |file: BackupFile| (file.created.as_millis() - at(0).as_millis()) / 86_400_000;
        list(dir).unwrap().into_iter().map(day).collect()
    }

    #[test]
    fn a_name_tells_when_and_foreign_names_tell_nothing() {
        let name = "facelatch-0123abcd-20231114T221320123Z.backup";
        assert_eq!(file_name("0123abcd", at(0)), name);
        assert_eq!(own_name(name), Some(("0123abcd", at(0))));
        assert!(is_own_name(&Path::new("/x").join(name)) && !is_own_name(Path::new("/x/..")));
        for foreign in [
            "",
            "facelatch-.backup",
            "facelatch-20231114T221320123Z.backup",
            "facelatch-mine-20231114T221320123Z.backup",
            "facelatch-0123abcd-20231114T221320123Z.backup.tmp",
            "facelatch-0123abcd-20231314T221320123Z.backup",
            "facelatch-0123abcd-2023111éT22132012Z.backup",
            "facelatch-0123abcd-20231114x221320123Z.backup",
            "my.backup",
            ".facelatch-unfinished-x",
        ] {
            assert_eq!(own_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = put(dir.path(), 0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let failed: Result<(), _> = write(&dir.path().join("a"), |out| {
            out.write_all(b"half").unwrap();
            Err(not_made(Path::new(""), &"the medium is full"))
        });
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("/a ") && message.contains("medium is full"), "{message}");
        let again = write(&path, |out| out.write_all(b"other").map_err(|_| unreachable!()));
        assert!(again.unwrap_err().to_string().contains("exists"), "nothing is written over");
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_a_crash_left_is_removed_by_the_next_backup() {
        let dir = tempfile::tempdir().unwrap();
        let backups = default_dir(dir.path());
        prepare(&backups).unwrap();
        assert_eq!(fs::metadata(&backups).unwrap().permissions().mode() & 0o777, 0o700);
        let left = backups.join(format!("{UNFINISHED_PREFIX}abc"));
        fs::write(&left, "half").unwrap();
        fs::write(backups.join("mine.backup"), "kept").unwrap();
        prepare(&backups).unwrap();
        assert!(!left.exists() && backups.join("mine.backup").exists());
    }

    #[test]
    fn the_oldest_go_and_files_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine.backup"), "").unwrap();
        let newest = (0..5).map(|day| put(dir.path(), day)).collect::<Vec<_>>().remove(4);
        let removed = rotate(dir.path(), 3, &newest, at(4)).unwrap();
        assert_eq!((removed.len(), days(dir.path())), (2, vec![2, 3, 4]));
        assert!(rotate(dir.path(), 3, &newest, at(4)).unwrap().is_empty());
        rotate(dir.path(), 0, &newest, at(4)).unwrap();
        assert_eq!(days(dir.path()), [4], "the one just made always stays");
        assert!(dir.path().join("mine.backup").exists());
    }

    /// Several devices that back up to one disk removed one another's.
    #[test]
    fn the_backups_of_another_store_make_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let newest = (0..3).map(|day| put(dir.path(), day)).collect::<Vec<_>>().remove(2);
        let theirs = dir.path().join(file_name("ffff0000", at(-9)));
        fs::write(&theirs, "").unwrap();
        assert_eq!(rotate(dir.path(), 1, &newest, at(2)).unwrap().len(), 2);
        assert!(theirs.exists() && newest.exists());
    }

    #[test]
    fn a_medium_without_room_is_named_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        require_room(dir.path(), 1).unwrap();
        let refused = require_room(dir.path(), u64::MAX / 4).unwrap_err().to_string();
        assert!(refused.contains("bytes left"), "{refused}");
    }

    #[test]
    fn what_somebody_put_in_the_place_of_a_backup_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "secret").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(open_own(&real).is_ok() && open_own(&link).is_err());
        assert!(copy(&link, &dir.path().join("to")).is_err());
    }

    #[test]
    fn a_clock_that_once_ran_ahead_does_not_crowd_out_what_is_made_since() {
        let dir = tempfile::tempdir().unwrap();
        for day in [1000, 1001, 1] {
            put(dir.path(), day);
        }
        let newest = put(dir.path(), 2);
        rotate(dir.path(), 3, &newest, at(2)).unwrap();
        assert_eq!(days(dir.path()), [1, 2, 1001]);
        rotate(dir.path(), 2, &newest, at(2)).unwrap();
        assert_eq!(days(dir.path()), [1, 2]);
    }

    #[test]
    fn replaced_databases_go_after_a_month_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "db",
            "db.new",
            "db.bak",
            "db.mine.before-restore",
            "other.bak",
            "db.schema-1.bak",
            "db.schema-1-2.bak",
            "db.newer.bak",
            "db.20231114T221320123Z.before-restore",
        ];
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let left = || names.map(|name| dir.path().join(name).exists());
        let now = SystemTime::now();
        assert!(remove_replaced(dir.path(), "db", now).unwrap().is_empty());
        let later = now + REPLACED_KEPT + Duration::from_secs(60);
        assert_eq!(remove_replaced(dir.path(), "db", later).unwrap().len(), 4);
        assert_eq!(left(), [true, true, true, true, true, false, false, false, false]);
    }

    #[test]
    fn a_replaced_database_from_the_future_goes_a_month_from_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.schema-1.bak");
        let now = SystemTime::now();
        File::create(&path).unwrap().set_modified(now + 9 * REPLACED_KEPT).unwrap();
        assert!(remove_replaced(dir.path(), "db", now).unwrap().is_empty());
        let later = now + REPLACED_KEPT + Duration::from_secs(60);
        assert_eq!(remove_replaced(dir.path(), "db", later).unwrap(), [path]);
    }
}
