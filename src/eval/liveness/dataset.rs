//! The pictures of a liveness evaluation, by what they present:
//!
//! ```text
//! DIR/bona-fide/*  DIR/bona-fide/<group>/*
//! DIR/attack/*     DIR/attack/<species>/*
//! DIR/refused/<REASON>/*  DIR/refused/<REASON>/<kind>/*
//! ```
//!
//! Files that lie directly in a folder belong to the group, species or kind [`UNNAMED`]; folders
//! below a group, species or kind belong to it. Each of the three may be missing. Any other folder
//! in DIR, and a picture directly in it, is an error: else a misspelt name would leave attacks out
//! unnoticed.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize as _;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NameError;

use crate::cli::output::UsageError;
use crate::eval::dataset::sorted;
use crate::face::liveness::LivenessReason;

/// Folder of pictures of people who are there.
pub const BONA_FIDE: &str = "bona-fide";
/// Folder of pictures of presentation attacks.
pub const ATTACK: &str = "attack";
/// Folder of pictures that have to be refused for the reason that their folder names.
pub const REFUSED: &str = "refused";
/// What files without a folder of their own belong to.
pub const UNNAMED: &str = "unnamed";

/// What a recording keeps beside its pictures: no folder of pictures, and no file to tell about.
const BESIDE: [&str; 2] = ["report", "consent.json"];
/// Most names in a message about folders that mean nothing.
const NAMED_MAX: usize = 5;
/// Deepest folder below a group, species or kind, which also ends circles of links.
const FOLDER_DEPTH_MAX: usize = 8;
/// What a picture's name ends with, in any case.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// What a picture presents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presentation {
    /// A person who is there.
    BonaFide {
        /// The sub-folder.
        group: String,
    },
    /// Something that shows a person.
    Attack {
        /// What it is made of.
        species: String,
    },
    /// Something that has to be refused for one reason.
    Refused {
        /// Why.
        reason: LivenessReason,
        /// The sub-folder.
        kind: String,
    },
}

/// One picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The file.
    pub path: PathBuf,
    /// The file's place below the data folder, for reports.
    pub name: String,
    /// What it presents.
    pub presentation: Presentation,
}

/// Everything that lies in the data folder.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    /// Files that are named as pictures, ordered by their names.
    pub pictures: Vec<Picture>,
    /// Files that are not named as pictures, for the report to tell.
    pub left_out: Vec<String>,
}

/// Lists the pictures below `dir`, where `out` may lie as well. What is wrong with the folder is a
/// [`UsageError`].
pub fn read(dir: &Path, out: &Path) -> anyhow::Result<Pictures> {
    let layout = format!("{BONA_FIDE}/*.jpg, {ATTACK}/<species>/*.jpg, {REFUSED}/<REASON>/*.jpg");
    if !dir.is_dir() {
        let problem = format!("{} is no folder; it should hold {layout}", dir.display());
        return Err(UsageError(problem).into());
    }
    let mut found = Reader { dir, found: Pictures::default() };
    found.named(BONA_FIDE, |group| Presentation::BonaFide { group })?;
    found.named(ATTACK, |species| Presentation::Attack { species })?;
    found.refused()?;
    let strange = found.others(out)?;
    if !strange.is_empty() {
        let problem = format!("in {} nothing says what {} shows", dir.display(), named(&strange));
        return Err(UsageError(format!("{problem}; wanted: {layout}")).into());
    }
    if found.found.pictures.is_empty() {
        let problem = format!("{} holds no pictures; wanted: {layout}", dir.display());
        return Err(UsageError(problem).into());
    }
    Ok(found.found)
}

struct Reader<'a> {
    dir: &'a Path,
    found: Pictures,
}

impl Reader<'_> {
    /// The files of a folder, and those of its sub-folders under their names.
    fn named(
        &mut self,
        folder: &str,
        presentation: impl Fn(String) -> Presentation,
    ) -> anyhow::Result<()> {
        let folder = self.dir.join(folder);
        if !folder.is_dir() {
            return Ok(());
        }
        for path in sorted(&folder)? {
            if path.is_dir() {
                self.below(&path, &presentation(name_of(&path)), FOLDER_DEPTH_MAX)?;
            } else {
                self.file(path, presentation(UNNAMED.into()));
            }
        }
        Ok(())
    }

    fn refused(&mut self) -> anyhow::Result<()> {
        let folder = self.dir.join(REFUSED);
        if !folder.is_dir() {
            return Ok(());
        }
        for path in sorted(&folder)? {
            if path.is_dir() {
                let name = name_of(&path);
                let reason = reason(&name).map_err(|known| {
                    let shown = path.display();
                    UsageError(format!("{shown}: `{name}` is no reason of a refusal; {known}"))
                })?;
                let folder = format!("{REFUSED}/{name}");
                self.named(&folder, |kind| Presentation::Refused { reason, kind })?;
            } else if is_picture(&path) {
                let problem = format!("{} lies in no folder that names a reason", path.display());
                return Err(UsageError(problem).into());
            } else {
                self.leave_out(&path);
            }
        }
        Ok(())
    }

    /// What lies directly in the data folder and says nothing about what it presents.
    fn others(&mut self, out: &Path) -> anyhow::Result<Vec<String>> {
        let out = out.canonicalize().ok();
        let mut strange = Vec::new();
        for path in sorted(self.dir)? {
            let name = name_of(&path);
            // Hidden folders are those of tools, such as version control.
            let is_known = BESIDE.contains(&name.as_str())
                || (path.is_dir()
                    && ([BONA_FIDE, ATTACK, REFUSED].contains(&name.as_str())
                        || name.starts_with('.')
                        || (out.is_some() && path.canonicalize().ok() == out)));
            if is_known {
                continue;
            }
            if path.is_dir() {
                strange.push(format!("`{name}/`"));
            } else if is_picture(&path) {
                strange.push(format!("`{name}`"));
            } else {
                self.leave_out(&path);
            }
        }
        Ok(strange)
    }

    fn below(&mut self, folder: &Path, as_what: &Presentation, depth: usize) -> anyhow::Result<()> {
        for path in sorted(folder)? {
            if !path.is_dir() {
                self.file(path, as_what.clone());
            } else if depth > 0 {
                self.below(&path, as_what, depth - 1)?;
            } else {
                self.leave_out(&path);
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, presentation: Presentation) {
        if is_picture(&path) {
            let name = self.relative(&path);
            self.found.pictures.push(Picture { path, name, presentation });
        } else {
            self.leave_out(&path);
        }
    }

    fn leave_out(&mut self, path: &Path) {
        let name = self.relative(path);
        self.found.left_out.push(name);
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.dir).unwrap_or(path).display().to_string()
    }
}

/// The first names, and how many more there are.
fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// The reason of that name; else the names that there are.
fn reason(name: &str) -> Result<LivenessReason, String> {
    let read: Result<_, NameError> = LivenessReason::deserialize(name.into_deserializer());
    read.map_err(|error| error.to_string())
}

/// Reads a picture file that is not larger than it may be.
pub fn file(path: &Path) -> anyhow::Result<Vec<u8>> {
    /// Larger than any picture that the decoder takes: 25 million pixels in PNG without compression
    /// have 100 MB with 8 bits a channel.
    const FILE_BYTES_MAX: u64 = 128 << 20;
    let bytes = fs::metadata(path)?.len();
    anyhow::ensure!(bytes <= FILE_BYTES_MAX, "the file has {bytes} bytes, more than the limit");
    fs::read(path).context("the file cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_OUT: &str = "/nonexistent/out";

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, []).unwrap();
        }
        dir
    }

    #[test]
    fn every_depth_may_be_missing() {
        let dir = folder(&[
            "bona-fide/a.jpg",
            "bona-fide/near/b.JPEG",
            "bona-fide/near/deep/er/c.png",
            "bona-fide/notes.txt",
            "attack/d.jpg",
            "attack/print/e.jpg",
            "refused/EYES_CLOSED/f.jpg",
            "refused/EYES_CLOSED/warped/g.jpg",
            "refused/README.md",
            "LICENSE",
            "consent.json",
            "report/det.jpg",
            "mine/h.jpg",
            ".git/i.jpg",
        ]);
        let found = read(dir.path(), &dir.path().join("mine")).unwrap();
        let closed = LivenessReason::EyesClosed;
        let refused = |kind: &str| Presentation::Refused { reason: closed, kind: kind.into() };
        let expected = [
            ("bona-fide/a.jpg", Presentation::BonaFide { group: UNNAMED.into() }),
            ("bona-fide/near/b.JPEG", Presentation::BonaFide { group: "near".into() }),
            ("bona-fide/near/deep/er/c.png", Presentation::BonaFide { group: "near".into() }),
            ("attack/d.jpg", Presentation::Attack { species: UNNAMED.into() }),
            ("attack/print/e.jpg", Presentation::Attack { species: "print".into() }),
            ("refused/EYES_CLOSED/f.jpg", refused(UNNAMED)),
            ("refused/EYES_CLOSED/warped/g.jpg", refused("warped")),
        ];
        let pictures: Vec<_> =
            found.pictures.iter().map(|p| (p.name.as_str(), p.presentation.clone())).collect();
        assert_eq!(pictures, expected);
        assert_eq!(found.left_out, ["bona-fide/notes.txt", "refused/README.md", "LICENSE"]);
        for files in [["attack/x.png"], ["bona-fide/x.png"], ["refused/FACE_CROPPED/x.png"]] {
            assert_eq!(
                read(folder(&files).path(), NO_OUT.as_ref()).unwrap().pictures.len(),
                1,
                "{files:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_folder_is_named() {
        for (files, words) in [
            (&[][..], ["holds no pictures", "bona-fide/"]),
            (&["bona-fide/x.txt"], ["holds no pictures", "attack/<species>"]),
            (&["people/a/x.jpg"], ["`people/`", "refused/<REASON>"]),
            (&["attack/x.jpg", "atack/y.jpg"], ["`atack/`", "attack/<species>"]),
            (&["attack/x.jpg", "y.PNG", "report/z.jpg"], ["`y.PNG`", "bona-fide/"]),
            (&["0/x", "1/x", "2/x", "3/x", "4/x", "5/x", "6/x"], ["`4/` and 2 more", "wanted"]),
            (&["attack/x.jpg", "refused/EYES_SHUT/y.jpg"], ["`EYES_SHUT`", "EYES_CLOSED"]),
            (&["attack/x.jpg", "refused/y.jpg"], ["refused/y.jpg", "no folder"]),
        ] {
            let error = read(folder(files).path(), NO_OUT.as_ref()).unwrap_err();
            assert!(error.is::<UsageError>(), "{files:?}");
            for word in words {
                assert!(error.to_string().contains(word), "{files:?}: {error}");
            }
        }
        let error = read("/nonexistent/pictures".as_ref(), NO_OUT.as_ref()).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("/nonexistent/pictures"));
    }
}
