//! Brings the files of a pack to the models folder: from folders first, then from upstream.
//!
//! Promises: a file gets its name only after its SHA-256 was compared, by an atomic rename, so a
//! reader never sees a half; correct files are kept, so repeating it is harmless; one install at a
//! time in one folder. The files of a pack of which nothing is there wait under other names until
//! all of them are: a pack in part stops recognition, where none at all leaves the embedded one. What cannot be had is told file by file, with the place where it belongs.
//! Where an embedding was chosen, the others of the pack are brought if they can be had; lacking
//! them is no failure, since nothing loads them.

use std::cell::OnceCell;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::inference::download::{DownloadError, Downloader};
use crate::inference::entries::ModelEntry;
use crate::inference::manifest::{CheckedFile, Manifest, ManifestError, is_embedded, read_checked};

/// How deep a source folder is searched for a file by its hash.
const SOURCE_DEPTH_MAX: usize = 4;

/// How many files of a source folder are looked at; more are ignored.
const SOURCE_FILES_MAX: usize = 10_000;

/// Added to the name of a file that grows.
const PART: &str = ".part";
/// Added to the name of a checked file until it gets its place.
const READY: &str = ".ready";

/// What to install, and from where.
pub struct InstallRequest<'a> {
    /// Name of the pack.
    pub pack: &'a str,
    /// The one embedding that has to be there; `None` asks for all of the pack.
    pub embedding: Option<&'a str>,
    /// The models folder.
    pub dir: &'a Path,
    /// Folder that the user named; it has to exist.
    pub from: Option<&'a Path>,
    /// Folders to look in after `from`, in order; those that do not exist are passed over.
    pub fallbacks: &'a [PathBuf],
    /// Whether the user accepted the terms of the pack.
    pub consent: Consent,
    /// Fetches from upstream; `None` stays offline.
    pub downloader: Option<&'a Downloader>,
}

/// Whether the terms of a pack were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// By the user, for this pack.
    Given,
    /// Not, or not yet.
    NotGiven,
}

/// Hears how far the installation is.
pub trait Progress {
    /// A transfer begins.
    fn transfer(&mut self, file: &str, size_bytes: u64, origin: &str);
    /// Bytes of the transfer that are on disk.
    fn position(&mut self, bytes: u64);
    /// The file is dealt with; `None` when it is missing still.
    fn done(&mut self, file: &str, outcome: Option<&Outcome>);
}

/// How a file came to its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is inside the binary.
    Embedded,
    /// The right file was there already.
    Kept,
    /// From a folder.
    Copied(PathBuf),
    /// From an address.
    Downloaded(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => write!(out, "inside the binary"),
            Self::Kept => write!(out, "already there"),
            Self::Copied(path) => write!(out, "copied from {}", path.display()),
            Self::Downloaded(url) => write!(out, "downloaded from {url}"),
        }
    }
}

/// A file that could not be had, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Where it belongs.
    pub place: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Lower-case hex SHA-256.
    pub sha256: String,
    /// Other files that are accepted there: size in bytes, SHA-256 and what makes each.
    pub alternates: Vec<(u64, String, String)>,
    /// What was tried and how it ended, and how the file can be made.
    pub notes: Vec<String>,
}

/// Why a pack is not, or not completely, installed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum InstallError {
    /// There is no such pack.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The pack has terms that must be accepted first.
    #[error("the pack `{pack}` has terms: {terms}. Repeat with --accept-licence to accept them")]
    NotAccepted {
        /// Name of the pack.
        pack: String,
        /// What has to be accepted.
        terms: String,
    },
    /// The folder that the user named.
    #[error("{path} is not a folder")]
    NoSuchFolder {
        /// As given.
        path: PathBuf,
    },
    /// Another install works in the same folder.
    #[error("another `facelatch models install` is at work in {dir}; wait until it has ended")]
    Busy {
        /// The models folder.
        dir: PathBuf,
    },
    /// The models folder cannot be written.
    #[error("{path} cannot be written: {reason}; run it as a user who may, or set models.dir")]
    Write {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Some files could not be had; the others are in place, or wait for them.
    #[error("{}", missing_text(pack, missing, *waiting))]
    Incomplete {
        /// Name of the pack.
        pack: String,
        /// What is missing still.
        missing: Vec<Missing>,
        /// Whether the files that could be had wait beside their places, since nothing of the pack
        /// was there before.
        waiting: bool,
    },
}

/// Installs all files of a pack; answers how each one came to its place.
pub fn install(
    manifest: &Manifest,
    request: &InstallRequest,
    progress: &mut dyn Progress,
) -> Result<Vec<(String, Outcome)>, InstallError> {
    let pack = manifest.pack_entry(request.pack)?;
    if let Some(chosen) = request.embedding {
        manifest.check_embedding(request.pack, chosen)?;
    }
    let needless = |name: &str| {
        request.embedding.is_some_and(|chosen| chosen != name)
            && pack.embeddings.iter().any(|own| own == name)
    };
    if let (Some(terms), Consent::NotGiven) = (&pack.must_accept, request.consent) {
        let (pack, terms) = (request.pack.to_string(), terms.clone());
        return Err(InstallError::NotAccepted { pack, terms });
    }
    if let Some(path) = request.from.filter(|path| !path.is_dir()) {
        return Err(InstallError::NoSuchFolder { path: path.to_path_buf() });
    }
    let models = manifest.models_of(request.pack)?;
    // Nothing to do needs no right to write.
    let complete = models.iter().all(|(_, model)| {
        is_embedded(model) || is_right(request, &request.dir.join(&model.file), model)
    });
    let _lock = if complete { None } else { Some(lock(request.dir)?) };
    let folders = request.from.into_iter().chain(request.fallbacks.iter().map(PathBuf::as_path));
    let sources: Vec<SourceFolder> = folders.map(SourceFolder::new).collect();
    let (mut outcomes, mut missing) = (Vec::new(), Vec::new());
    for (name, model) in &models {
        let outcome = bring(request, &sources, model, progress)?;
        progress.done(&model.file, outcome.as_ref().ok());
        match outcome {
            Ok(outcome) => outcomes.push((model.file.clone(), outcome)),
            Err(_) if needless(name) => {}
            Err(lack) => missing.push(lack),
        }
    }
    let was_there = models.iter().any(|(_, model)| request.dir.join(&model.file).exists());
    let waiting = !missing.is_empty() && !was_there;
    if !waiting {
        for (_, model) in &models {
            let place = request.dir.join(&model.file);
            if beside(&place, READY).exists() && !is_right(request, &place, model) {
                put_in_place(&beside(&place, READY), &place)?;
            }
        }
    }
    if missing.is_empty() {
        return Ok(outcomes);
    }
    Err(InstallError::Incomplete { pack: request.pack.to_string(), missing, waiting })
}

/// The outcome for a file that needs no work.
fn present(request: &InstallRequest, model: &ModelEntry) -> Option<Outcome> {
    if is_embedded(model) {
        return Some(Outcome::Embedded);
    }
    let place = request.dir.join(&model.file);
    let ready = beside(&place, READY);
    (is_right(request, &place, model) || is_right(request, &ready, model)).then_some(Outcome::Kept)
}

fn is_right(request: &InstallRequest, path: &Path, model: &ModelEntry) -> bool {
    read_checked(request.pack, path, model).is_ok()
}

/// Brings one file. The outer error ends the installation, the inner one is this file's alone.
fn bring(
    request: &InstallRequest,
    sources: &[SourceFolder],
    model: &ModelEntry,
    progress: &mut dyn Progress,
) -> Result<Result<Outcome, Missing>, InstallError> {
    if let Some(outcome) = present(request, model) {
        return Ok(Ok(outcome));
    }
    let place = request.dir.join(&model.file);
    let mut notes = Vec::new();
    for source in sources {
        match source.find(request.pack, model) {
            Ok((path, CheckedFile { bytes, .. })) => {
                let size = bytes.len() as u64;
                progress.transfer(&model.file, size, &path.display().to_string());
                let part = part_path(&place)?;
                fs::write(&part, &bytes).map_err(|error| write_error(&part, &error))?;
                progress.position(size);
                put_in_place(&part, &beside(&place, READY))?;
                return Ok(Ok(Outcome::Copied(path)));
            }
            Err(note) => notes.push(note),
        }
    }
    for url in &model.url {
        match fetch(request, model, url, progress)? {
            Ok(()) => return Ok(Ok(Outcome::Downloaded(url.clone()))),
            Err(note) => notes.push(note),
        }
    }
    notes.extend(origin_notes(model));
    let others = model.alternate.iter();
    let alternates = others.map(|other| (other.size, other.sha256.clone(), other.made_by.clone()));
    Ok(Err(Missing {
        place,
        size: model.size,
        sha256: model.sha256.clone(),
        alternates: alternates.collect(),
        notes,
    }))
}

/// Downloads, checks and puts in place. A wrong file is deleted; when its beginning came from an
/// earlier attempt, it is fetched once more from the start.
fn fetch(
    request: &InstallRequest,
    model: &ModelEntry,
    url: &str,
    progress: &mut dyn Progress,
) -> Result<Result<(), String>, InstallError> {
    let Some(downloader) = request.downloader else {
        return Ok(Err(format!("{url}: not asked, offline")));
    };
    let place = request.dir.join(&model.file);
    let part = part_path(&place)?;
    progress.transfer(&model.file, model.size, url);
    loop {
        let resumed = fs::metadata(&part).is_ok_and(|metadata| metadata.len() > 0);
        let mut position = |bytes| progress.position(bytes);
        match downloader.fetch(url, &part, model.size, &mut position) {
            Ok(()) => {}
            Err(DownloadError::Write { path, reason }) => {
                return Err(InstallError::Write { path, reason });
            }
            Err(error) => return Ok(Err(format!("{url}: {error}"))),
        }
        match read_checked(request.pack, &part, model) {
            Ok(_) => return put_in_place(&part, &beside(&place, READY)).map(Ok),
            Err(error) => {
                fs::remove_file(&part).map_err(|error| write_error(&part, &error))?;
                if !resumed {
                    return Ok(Err(format!("{url}: {}", found_text(&error))));
                }
            }
        }
    }
}

/// A folder that may hold the wanted files, under any name.
struct SourceFolder {
    root: PathBuf,
    /// Files with their sizes, listed when first needed.
    files: OnceCell<Vec<(PathBuf, u64)>>,
}

impl SourceFolder {
    fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), files: OnceCell::new() }
    }

    /// The file by its path in the manifest, by its name, or by its hash.
    fn find<'a>(
        &self,
        pack: &str,
        model: &'a ModelEntry,
    ) -> Result<(PathBuf, CheckedFile<'a>), String> {
        if !self.root.is_dir() {
            return Err(format!("{}: there is no such folder", self.root.display()));
        }
        let named =
            [Some(Path::new(&model.file)), Path::new(&model.file).file_name().map(Path::new)];
        let mut note = format!("{}: not there", self.root.display());
        for path in named.into_iter().flatten().map(|name| self.root.join(name)) {
            match read_checked(pack, &path, model) {
                Ok(file) => return Ok((path, file)),
                Err(error @ ManifestError::Mismatch { .. }) => {
                    note = format!("{}: {}", path.display(), found_text(&error));
                }
                Err(_) => {}
            }
        }
        let files = self.files.get_or_init(|| list_files(&self.root));
        let sized = files.iter().filter(|(_, size)| model.sizes().any(|own| own == *size));
        let mut right = sized
            .filter_map(|(path, _)| Some((path.clone(), read_checked(pack, path, model).ok()?)));
        right.next().ok_or(note)
    }
}

/// Files below `root` with their sizes. Folders behind symbolic links are not entered, so there are
/// no loops; what cannot be read is passed over.
fn list_files(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    let mut pending = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = pending.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, is_folder) =
                (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
            if is_folder && depth < SOURCE_DEPTH_MAX {
                pending.push((path, depth + 1));
            } else if let Some(metadata) = fs::metadata(&path).ok().filter(fs::Metadata::is_file) {
                files.push((path, metadata.len()));
            }
            if files.len() >= SOURCE_FILES_MAX {
                return files;
            }
        }
    }
    files
}

fn lock(dir: &Path) -> Result<File, InstallError> {
    fs::create_dir_all(dir).map_err(|error| write_error(dir, &error))?;
    let path = dir.join(".install.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| write_error(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(InstallError::Busy { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(write_error(&path, &error)),
    }
}

/// Where a file grows before it gets its name; makes the folder.
fn part_path(place: &Path) -> Result<PathBuf, InstallError> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder).map_err(|error| write_error(folder, &error))?;
    }
    Ok(beside(place, PART))
}

/// The path with something added to its name.
fn beside(place: &Path, ending: &str) -> PathBuf {
    let mut path = place.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Makes the checked bytes durable, then gives them their name.
fn put_in_place(part: &Path, place: &Path) -> Result<(), InstallError> {
    let write = |result: std::io::Result<()>, path: &Path| {
        result.map_err(|error| write_error(path, &error))
    };
    write(
        File::options().write(true).open(part).and_then(|mut file| {
            file.flush()?;
            file.sync_all()
        }),
        part,
    )?;
    write(fs::rename(part, place), place)?;
    let folder = place.parent().unwrap_or(place);
    write(File::open(folder).and_then(|folder| folder.sync_all()), folder)
}

fn write_error(path: &Path, error: &std::io::Error) -> InstallError {
    InstallError::Write { path: path.to_path_buf(), reason: error.to_string() }
}

fn found_text(error: &ManifestError) -> String {
    match error {
        ManifestError::Mismatch { found, .. } => format!("another file, SHA-256 {found}"),
        other => other.to_string(),
    }
}

fn origin_notes(model: &ModelEntry) -> Option<String> {
    let made_by = model.made_by.as_ref()?;
    let source = model.source.as_ref().map(|source| {
        let from = source.url.as_deref().unwrap_or(&model.upstream.repository);
        format!(", made of {} ({from})", source.file)
    });
    Some(format!("upstream has no such file; {made_by}{}", source.unwrap_or_default()))
}

fn missing_text(pack: &str, missing: &[Missing], waiting: bool) -> String {
    let mut lines = vec![format!("{} files of the pack `{pack}` are missing:", missing.len())];
    for file in missing {
        let place = file.place.display();
        lines.push(format!("  {place} ({} bytes, SHA-256 {})", file.size, file.sha256));
        lines.extend(file.alternates.iter().map(|(size, sha256, made_by)| {
            format!("    or what {made_by} makes ({size} bytes, SHA-256 {sha256})")
        }));
        lines.extend(file.notes.iter().map(|note| format!("    {note}")));
    }
    let until_then = if waiting {
        "What could be had waits beside its place, and the models that run now go on"
    } else {
        "Until then, `models.pack = \"builtin\"` runs the embedded models"
    };
    lines.push(format!(
        "Put the files, under any names, in one folder and run `facelatch models install --pack \
         {pack} --from FOLDER`; with `--embedding NAME`, the other embeddings of the pack may be \
         missing. {until_then}"
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::inference::download::server::{Server, answer, rest, whole};
    use crate::inference::manifest::fixture;

    /// Keeps what was told, as `file: outcome`.
    #[derive(Default)]
    struct Recorder(Vec<String>);

    impl Progress for Recorder {
        fn transfer(&mut self, _file: &str, _size_bytes: u64, _origin: &str) {}

        fn position(&mut self, _bytes: u64) {}

        fn done(&mut self, file: &str, outcome: Option<&Outcome>) {
            let outcome = outcome.map_or("missing".to_string(), ToString::to_string);
            self.0.push(format!("{file}: {outcome}"));
        }
    }

    struct Bench {
        manifest: Manifest,
        folder: tempfile::TempDir,
        downloader: Option<Downloader>,
        consent: Consent,
        embedding: Option<&'static str>,
    }

    impl Bench {
        /// The fixture's pack with the detector at `urls`; target and source folders are empty.
        fn new(urls: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("source")).unwrap();
            Self {
                manifest: fixture::manifest(urls),
                folder,
                downloader: Some(Downloader::direct()),
                consent: Consent::Given,
                embedding: None,
            }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        fn put(&self, path: &str, bytes: &[u8]) {
            fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
            fs::write(self.path(path), bytes).unwrap();
        }

        fn run(&self) -> (Result<(), InstallError>, Vec<String>) {
            let request = InstallRequest {
                pack: "standard",
                embedding: self.embedding,
                dir: &self.path("models"),
                from: Some(&self.path("source")),
                fallbacks: &[self.path("absent"), self.path("second")],
                consent: self.consent,
                downloader: self.downloader.as_ref(),
            };
            let mut told = Recorder::default();
            let outcome = install(&self.manifest, &request, &mut told).map(|_| ());
            (outcome, told.0)
        }

        fn no_part_is_left(&self) -> bool {
            !fixture::FILES
                .iter()
                .any(|(_, file)| self.path(&format!("models/{file}.part")).exists())
        }
    }

    #[test]
    fn files_come_from_folders_by_path_by_name_and_by_hash_and_are_kept_the_second_time() {
        let bench = Bench::new(&[]);
        bench.put("source/standard/detector.onnx", &fixture::bytes("detector"));
        bench.put("source/embedding.onnx", &fixture::bytes("embedding"));
        bench.put("second/deep/below/renamed.bin", &fixture::bytes("pad"));
        bench.put("second/deep/decoy.bin", &vec![0; fixture::bytes("pad").len()]);
        let (outcome, told) = bench.run();
        outcome.unwrap();
        let from = |path: &str| format!("copied from {}", bench.path(path).display());
        assert_eq!(
            told,
            [
                format!("standard/detector.onnx: {}", from("source/standard/detector.onnx")),
                format!("standard/embedding.onnx: {}", from("source/embedding.onnx")),
                format!("standard/pad.onnx: {}", from("second/deep/below/renamed.bin")),
            ]
        );
        assert!(bench.no_part_is_left());
        bench.manifest.pack("standard", None, &bench.path("models")).expect("it can be loaded");
        fs::remove_dir_all(bench.path("source")).unwrap();
        fs::create_dir(bench.path("source")).unwrap();
        let (outcome, told) = bench.run();
        outcome.unwrap();
        assert!(told.iter().all(|line| line.ends_with("already there")), "{told:?}");
    }

    #[test]
    fn a_damaged_installed_file_is_replaced_and_a_damaged_source_is_not_used() {
        let bench = Bench::new(&[]);
        for (name, file) in fixture::FILES {
            bench.put(&format!("second/{file}"), &fixture::bytes(name));
        }
        bench.put("models/standard/detector.onnx", b"damaged");
        bench.put("source/standard/detector.onnx", b"damaged as well");
        bench.run().0.unwrap();
        let installed = fs::read(bench.path("models/standard/detector.onnx")).unwrap();
        assert_eq!(installed, fixture::bytes("detector"));
    }

    #[test]
    fn what_is_missing_is_told_with_place_hash_and_reasons() {
        let mut bench = Bench::new(&["http://127.0.0.1:9/unused"]);
        bench.downloader = None;
        bench.put("source/standard/detector.onnx", b"something else");
        bench.put("source/standard/embedding.onnx", &fixture::bytes("embedding"));
        let (outcome, told) = bench.run();
        assert!(told[1].contains("copied"), "files that can be had are installed: {told:?}");
        let text = outcome.unwrap_err().to_string();
        let places = ["detector", "pad"]
            .map(|name| bench.path(&format!("models/standard/{name}.onnx")).display().to_string());
        let expected = [
            "2 files",
            &places[0],
            &fixture::sha256("detector"),
            "another file, SHA-256 ",
            "unused: not asked, offline",
            "made by hand, made of pad.pth (https://example.org/pad)",
            &places[1],
            "absent: there is no such folder",
            "--from FOLDER",
            "--embedding NAME",
        ];
        for part in expected {
            assert!(text.contains(part), "`{part}` is not in:\n{text}");
        }
        assert!(!text.contains("embedding.onnx"));
    }

    #[test]
    fn a_pack_of_which_nothing_is_there_gets_its_files_when_all_can_be_had() {
        let bench = Bench::new(&[]);
        let places = ["detector", "embedding", "pad"]
            .map(|name| bench.path(&format!("models/standard/{name}.onnx")));
        for name in ["detector", "embedding"] {
            bench.put(&format!("source/{name}.onnx"), &fixture::bytes(name));
        }
        let text = bench.run().0.unwrap_err().to_string();
        assert!(text.contains("1 files") && text.contains("models that run now go on"), "{text}");
        assert!(places.iter().all(|place| !place.exists()));
        let dir = bench.path("models");
        assert_eq!(bench.manifest.active("standard", None, &dir), Ok("builtin"));
        // What waits need not be found again, and a power cut may have damaged it.
        fs::remove_file(bench.path("source/embedding.onnx")).unwrap();
        fs::write(beside(&places[0], READY), b"half").unwrap();
        bench.put("source/pad.onnx", &fixture::bytes("pad"));
        let (outcome, told) = bench.run();
        outcome.unwrap();
        assert!(told[0].contains("copied") && told[1].ends_with("already there"), "{told:?}");
        bench.manifest.pack("standard", None, &dir).expect("it can be loaded");
        assert!(places.iter().all(|place| !beside(place, READY).exists()));
        // One that was there already counts as installed in part in any case.
        fs::remove_file(&places[0]).unwrap();
        fs::remove_file(&places[1]).unwrap();
        fs::remove_file(bench.path("source/detector.onnx")).unwrap();
        bench.put("source/embedding.onnx", &fixture::bytes("embedding"));
        let text = bench.run().0.unwrap_err().to_string();
        assert!(text.contains("models.pack = \"builtin\""), "{text}");
        assert!(places[1].exists());
    }

    #[test]
    fn an_alternate_is_taken_by_name_and_by_hash_and_kept_and_the_main_file_goes_first() {
        let bench = Bench::new(&[]);
        bench.put("source/detector.onnx", &fixture::bytes("detector"));
        bench.put("source/embedding.onnx", &fixture::alternate_bytes());
        bench.put("source/pad.onnx", &fixture::bytes("pad"));
        bench.run().0.unwrap();
        let installed = bench.path("models/standard/embedding.onnx");
        assert_eq!(fs::read(&installed).unwrap(), fixture::alternate_bytes());
        bench.put("source/embedding.onnx", &fixture::bytes("embedding"));
        let (outcome, told) = bench.run();
        outcome.unwrap();
        assert!(told.iter().all(|line| line.ends_with("already there")), "{told:?}");

        fs::remove_file(&installed).unwrap();
        fs::remove_file(bench.path("source/embedding.onnx")).unwrap();
        bench.put("second/made/anything.bin", &fixture::alternate_bytes());
        let (outcome, told) = bench.run();
        outcome.unwrap();
        assert!(told[1].ends_with("made/anything.bin"), "{told:?}");
        assert_eq!(fs::read(&installed).unwrap(), fixture::alternate_bytes());

        fs::remove_file(&installed).unwrap();
        let mut flipped = fixture::alternate_bytes();
        flipped[3] ^= 1;
        bench.put("second/made/anything.bin", &flipped);
        let text = bench.run().0.unwrap_err().to_string();
        let expected = format!(
            "or what the converter makes ({} bytes, SHA-256 {})",
            fixture::alternate_bytes().len(),
            crate::inference::manifest::sha256_hex(&fixture::alternate_bytes()),
        );
        assert!(text.contains(&expected), "{text}");
        assert!(!installed.exists(), "one flipped bit makes it no alternate");
    }

    #[test]
    fn with_a_chosen_embedding_the_others_may_be_missing() {
        let mut bench = Bench::new(&[]);
        for name in ["detector", "pad", "second"] {
            bench.put(&format!("source/{name}.onnx"), &fixture::bytes(name));
        }
        let text = fixture::text(&[]);
        let block =
            &text[text.find("[model.embedding]").unwrap()..text.find("[model.pad]").unwrap()];
        let block =
            block[..block.find("alternate").unwrap()].replace("embedding.onnx", "second.onnx");
        let block = block
            .replace("[model.embedding]", "[model.second]")
            .replace(&fixture::sha256("embedding"), &fixture::sha256("second"));
        let block = block.replace(
            &format!("size = {}", fixture::bytes("embedding").len()),
            &format!("size = {}", fixture::bytes("second").len()),
        );
        let text = text
            .replace("['embedding']", "['embedding', 'second']")
            .replace("[model.pad]", &format!("{block}\n[model.pad]"));
        bench.manifest = Manifest::parse(&text).unwrap();
        let lacking = bench.run().0.unwrap_err().to_string();
        assert!(lacking.contains("1 files") && lacking.contains("embedding.onnx"), "{lacking}");
        bench.embedding = Some("second");
        let (outcome, told) = bench.run();
        outcome.unwrap();
        assert!(told.contains(&"standard/embedding.onnx: missing".to_string()), "{told:?}");
        bench.manifest.pack("standard", Some("second"), &bench.path("models")).expect("it loads");
        bench.embedding = Some("huge");
        let refused = bench.run().0.unwrap_err().to_string();
        assert!(refused.contains("choose one of `embedding`, `second`"), "{refused}");
    }

    fn download(script: Vec<Vec<u8>>, part: &[u8]) -> (Bench, Result<(), InstallError>) {
        let server = Server::playing(script);
        let bench = Bench::new(&[&server.url]);
        for name in ["embedding", "pad"] {
            bench.put(&format!("source/{name}.onnx"), &fixture::bytes(name));
        }
        if !part.is_empty() {
            bench.put("models/standard/detector.onnx.part", part);
        }
        let outcome = bench.run().0;
        (bench, outcome)
    }

    #[test]
    fn a_download_gets_its_name_only_when_its_hash_is_right() {
        let right = fixture::bytes("detector");
        let (bench, outcome) = download(vec![whole(&right)], b"");
        outcome.unwrap();
        assert_eq!(fs::read(bench.path("models/standard/detector.onnx")).unwrap(), right);
        assert!(bench.no_part_is_left());

        let mut wrong = right.clone();
        wrong[5] ^= 1;
        let (bench, outcome) = download(vec![whole(&wrong)], b"");
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains("another file, SHA-256"), "{text}");
        assert!(!bench.path("models/standard/detector.onnx").exists());
        assert!(bench.no_part_is_left(), "a wrong file must not be resumed");

        let (_, outcome) = download(vec![answer("404 Not Found", "", 0, b"")], b"");
        assert!(outcome.unwrap_err().to_string().contains("answers 404"));
    }

    #[test]
    fn a_download_goes_on_with_the_part_and_starts_over_when_the_part_was_wrong() {
        let right = fixture::bytes("detector");
        let (bench, outcome) = download(vec![rest(&right, 10)], &right[..10]);
        outcome.unwrap();
        assert!(bench.no_part_is_left());
        let stale = [0; 10];
        let (bench, outcome) = download(vec![rest(&right, 10), whole(&right)], &stale);
        outcome.unwrap();
        assert_eq!(fs::read(bench.path("models/standard/detector.onnx")).unwrap(), right);
    }

    #[test]
    fn a_truncated_download_is_no_model_and_its_part_waits_for_the_next_time() {
        let right = fixture::bytes("detector");
        let broken = || answer("200 OK", "", right.len(), &right[..10]);
        let stuck = answer(
            "206 Partial Content",
            &format!("Content-Range: bytes 10-{}/{}\r\n", right.len() - 1, right.len()),
            right.len() - 10,
            b"",
        );
        let (bench, outcome) = download(vec![broken(), stuck], b"");
        assert!(outcome.unwrap_err().to_string().contains("broke off after 10 of"));
        assert!(!bench.path("models/standard/detector.onnx").exists());
        assert_eq!(fs::read(bench.path("models/standard/detector.onnx.part")).unwrap().len(), 10);
    }

    #[test]
    fn terms_are_accepted_first_and_folders_exist() {
        let manifest = Manifest::embedded();
        let folder = tempfile::tempdir().unwrap();
        let mut request = InstallRequest {
            pack: "noncommercial",
            embedding: None,
            dir: folder.path(),
            from: None,
            fallbacks: &[],
            consent: Consent::NotGiven,
            downloader: None,
        };
        let refused = install(manifest, &request, &mut Recorder::default()).unwrap_err();
        assert!(matches!(&refused, InstallError::NotAccepted { .. }), "{refused}");
        assert!(refused.to_string().contains("--accept-licence"));
        request.consent = Consent::Given;
        let incomplete = install(manifest, &request, &mut Recorder::default()).unwrap_err();
        assert!(matches!(incomplete, InstallError::Incomplete { .. }), "{incomplete}");
        let absent = folder.path().join("absent");
        request.from = Some(&absent);
        let refused = install(manifest, &request, &mut Recorder::default()).unwrap_err();
        assert_eq!(refused, InstallError::NoSuchFolder { path: absent.clone() });
    }

    #[test]
    fn two_installations_do_not_share_a_folder() {
        let bench = Bench::new(&[]);
        let _held = lock(&bench.path("models")).unwrap();
        let dir = bench.path("models");
        assert_eq!(bench.run().0, Err(InstallError::Busy { dir }));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let bench = Bench::new(&[]);
        bench.put("models", b"a file where the folder should be");
        let error = bench.run().0.unwrap_err().to_string();
        assert!(
            error.contains("models cannot be written") && error.contains("models.dir"),
            "{error}"
        );
    }
}
