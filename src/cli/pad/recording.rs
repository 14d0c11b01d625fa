//! The folder of a recording: frames, the note of consent, and who may read them.
//!
//! Folders have mode 0700 and files 0600. A frame appears whole or not at all, under the next free
//! number of its step, so a recording may be cut off anywhere and resumed.

use std::fs;
use std::fs::DirBuilder;
use std::fs::Permissions;
use std::io::ErrorKind;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::cli::output::UsageError;
use crate::clock::UtcTime;
use crate::eval::dataset::sorted;
use crate::eval::liveness::dataset::ATTACK;
use crate::eval::liveness::dataset::BONA_FIDE;

/// The note of consent; a folder with it is a recording.
const NOTE: &str = "consent.json";
const REPORT: &str = "report";
const FOLDER_MODE: u32 = 0o700;

/// What was agreed to, when, and by which camera. Never who: the pictures show that already.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    consent: String,
    time: UtcTime,
    version: String,
    camera: String,
    /// When it was gone on with.
    resumed: Vec<UtcTime>,
}

/// A folder that holds a recording.
#[derive(Debug)]
pub struct Recording {
    dir: PathBuf,
}

impl Recording {
    /// Begins a recording in a new or empty folder, or goes on with one of the same camera.
    pub fn open(dir: &Path, camera: &str, resume: bool, now: UtcTime) -> anyhow::Result<Self> {
        let own = Self { dir: dir.to_path_buf() };
        let shown = dir.display();
        // A note alone, as after a power cut, holds nobody's picture: it is begun anew.
        let is_begun = own.dir.join(NOTE).is_file() && (resume || own.frames_in_all()? > 0);
        if is_begun {
            if !resume {
                let remedy = "go on with it by --resume, or name another folder";
                return Err(UsageError(format!("{shown} holds a recording; {remedy}")).into());
            }
            own.resume(camera, now)?;
            return Ok(own);
        }
        let occupied = dir.exists() && !(dir.is_dir() && own.is_free()?);
        if occupied {
            let problem = format!("{shown} is neither a recording nor an empty folder");
            return Err(UsageError(problem).into());
        }
        if resume {
            return Err(UsageError(format!("nothing to resume in {shown}")).into());
        }
        make_folder(dir)?;
        // It may have been there with other rights.
        fs::set_permissions(dir, Permissions::from_mode(FOLDER_MODE))
            .with_context(|| shown.to_string())?;
        own.write_note(&Note {
            consent: "Given on the command line (--consent): pictures of the people before the \
                      camera are stored in this folder, for measuring liveness. Deleting the \
                      folder deletes them."
                .into(),
            time: now,
            version: env!("CARGO_PKG_VERSION").into(),
            camera: camera.into(),
            resumed: Vec::new(),
        })?;
        Ok(own)
    }

    /// Whether the folder holds nothing, or the note of a recording without frames.
    fn is_free(&self) -> anyhow::Result<bool> {
        let note = self.dir.join(NOTE);
        let mut entries = sorted(&self.dir)?;
        if note.is_file() && self.frames_in_all()? == 0 {
            let own = [note, self.dir.join(BONA_FIDE), self.dir.join(ATTACK)];
            entries.retain(|path| !own.contains(path));
        }
        Ok(entries.is_empty())
    }

    /// Takes the note back where nothing was kept: there is nothing to consent to, and the folder
    /// is free for the next recording. Whether it was so.
    pub fn discard_when_empty(&self) -> anyhow::Result<bool> {
        if self.frames_in_all()? > 0 {
            return Ok(false);
        }
        for kind in [BONA_FIDE, ATTACK].map(|kind| self.dir.join(kind)) {
            for step in if kind.is_dir() { sorted(&kind)? } else { Vec::new() } {
                // Only an empty folder can be removed; what else lies there is left alone.
                let _ = fs::remove_dir(step);
            }
            let _ = fs::remove_dir(kind);
        }
        let note = self.dir.join(NOTE);
        match fs::remove_file(&note) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.with_context(|| note.display().to_string())?,
        }
        Ok(true)
    }

    fn resume(&self, camera: &str, now: UtcTime) -> anyhow::Result<()> {
        let file = self.dir.join(NOTE);
        let shown = || file.display().to_string();
        let text = fs::read_to_string(&file).with_context(shown)?;
        let mut note: Note = serde_json::from_str(&text).with_context(shown)?;
        if note.camera != camera {
            let shown = self.dir.display();
            let problem = format!(
                "{shown} was recorded with the camera `{}`, not `{camera}`: a report is about one \
                 camera; name another folder",
                note.camera
            );
            return Err(UsageError(problem).into());
        }
        note.resumed.push(now);
        self.write_note(&note)
    }

    fn write_note(&self, note: &Note) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(note).context("the note has a JSON form")?;
        let file = whole(&self.dir, format!("{text}\n").as_bytes())?;
        let target = self.dir.join(NOTE);
        file.persist(&target).with_context(|| target.display().to_string())?;
        Ok(())
    }

    /// Keeps a frame of a step.
    pub fn keep(&self, step: &str, jpeg: &[u8]) -> anyhow::Result<()> {
        let folder = self.dir.join(step);
        make_folder(&folder)?;
        let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u32>().ok();
        let last = frames(&folder)?.iter().filter_map(number).max().unwrap_or(0);
        let target = folder.join(format!("{:04}.jpg", last + 1));
        let file = whole(&folder, jpeg)?;
        file.persist_noclobber(&target).with_context(|| target.display().to_string())?;
        Ok(())
    }

    /// How many frames of a step there are.
    pub fn frames(&self, step: &str) -> anyhow::Result<usize> {
        Ok(frames(&self.dir.join(step))?.len())
    }

    /// How many there are of all steps, those of other species included.
    pub fn frames_in_all(&self) -> anyhow::Result<usize> {
        let mut count = 0;
        for kind in [BONA_FIDE, ATTACK].map(|kind| self.dir.join(kind)) {
            let steps = if kind.is_dir() { sorted(&kind)? } else { Vec::new() };
            for step in steps {
                count += frames(&step)?.len();
            }
        }
        Ok(count)
    }

    /// Where the report goes.
    pub fn report_folder(&self) -> anyhow::Result<PathBuf> {
        let folder = self.dir.join(REPORT);
        make_folder(&folder)?;
        Ok(folder)
    }
}

/// A file with its content that nobody sees yet; such files have mode 0600.
fn whole(folder: &Path, content: &[u8]) -> anyhow::Result<NamedTempFile> {
    let shown = || format!("{} cannot be written into", folder.display());
    let mut file = NamedTempFile::new_in(folder).with_context(shown)?;
    file.write_all(content).with_context(shown)?;
    Ok(file)
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .with_context(|| format!("{} cannot be made", folder.display()))
}

fn frames(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = if folder.is_dir() { sorted(folder)? } else { Vec::new() };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UtcTime = UtcTime::from_millis(1_700_000_000_000);

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn frames_are_private_and_numbered_on() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("new/folder");
        let recording = Recording::open(&dir, "front", false, NOW).unwrap();
        for byte in 1..=2 {
            recording.keep("bona-fide/near", &[byte]).unwrap();
        }
        fs::remove_file(dir.join("bona-fide/near/0001.jpg")).unwrap();
        recording.keep("bona-fide/near", &[3]).unwrap();
        recording.keep("attack/print", &[4]).unwrap();
        assert_eq!(fs::read(dir.join("bona-fide/near/0002.jpg")).unwrap(), [2]);
        assert_eq!(fs::read(dir.join("bona-fide/near/0003.jpg")).unwrap(), [3]);
        assert_eq!(recording.frames("bona-fide/near").unwrap(), 2);
        assert_eq!(recording.frames("attack/mask").unwrap(), 0);
        assert_eq!(recording.frames_in_all().unwrap(), 3);
        let report = recording.report_folder().unwrap();
        for folder in [&dir, &dir.join("bona-fide"), &dir.join("bona-fide/near"), &report] {
            assert_eq!(mode(folder), 0o700, "{}", folder.display());
        }
        for file in ["consent.json", "bona-fide/near/0002.jpg", "attack/print/0001.jpg"] {
            assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
        }
        let left = fs::read_dir(dir.join("bona-fide/near")).unwrap().count();
        assert_eq!(left, 2, "no file is left over");
    }

    #[test]
    fn only_a_recording_of_the_same_camera_is_resumed() {
        let home = tempfile::tempdir().unwrap();
        let usage = |dir: &Path, camera, resume, word: &str| {
            let error = Recording::open(dir, camera, resume, NOW).unwrap_err();
            assert!(error.is::<UsageError>() && error.to_string().contains(word), "{error}");
        };
        let dir = home.path().join("recording");
        usage(&dir, "front", true, "nothing to resume in ");
        assert!(!dir.exists());
        Recording::open(&dir, "front", false, NOW).unwrap().keep("attack/print", &[1]).unwrap();
        usage(&dir, "front", false, "--resume");
        usage(&dir, "back", true, "`front`, not `back`");
        Recording::open(&dir, "front", true, NOW).unwrap();
        let note: Note =
            serde_json::from_str(&fs::read_to_string(dir.join(NOTE)).unwrap()).unwrap();
        assert_eq!((note.camera.as_str(), note.time, note.resumed), ("front", NOW, vec![NOW]));
        assert_eq!(note.version, env!("CARGO_PKG_VERSION"));
        usage(&dir.join("attack"), "front", true, "neither");
        usage(&dir.join(NOTE), "front", false, "neither");
        fs::write(dir.join(NOTE), "{").unwrap();
        let error = Recording::open(&dir, "front", true, NOW).unwrap_err();
        assert!(format!("{error:#}").contains("consent.json"), "{error:#}");
    }

    #[test]
    fn a_recording_without_frames_does_not_stand_in_the_way_of_the_next() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("recording");
        let recording = Recording::open(&dir, "front", false, NOW).unwrap();
        // As after a power cut within the first frame.
        fs::create_dir_all(dir.join("bona-fide/near")).unwrap();
        Recording::open(&dir, "back", false, NOW).unwrap();
        assert!(recording.discard_when_empty().unwrap());
        assert!(sorted(&dir).unwrap().is_empty(), "{:?}", sorted(&dir));
        assert!(recording.discard_when_empty().unwrap(), "twice is no error");
        let recording = Recording::open(&dir, "front", false, NOW).unwrap();
        recording.keep("attack/print", &[1]).unwrap();
        assert!(!recording.discard_when_empty().unwrap());
        assert!(dir.join(NOTE).is_file());
        fs::remove_file(dir.join("attack/print/0001.jpg")).unwrap();
        fs::write(dir.join("diary.txt"), "of the user").unwrap();
        Recording::open(&dir, "front", false, NOW).unwrap_err();
    }

    #[test]
    fn an_empty_folder_of_the_user_becomes_private() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("empty");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        Recording::open(&dir, "front", false, NOW).unwrap();
        assert_eq!(mode(&dir), 0o700);
    }
}
