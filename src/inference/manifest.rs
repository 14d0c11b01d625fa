//! `models/manifest.toml`: which files make which pack, their hashes, licences, origin,
//! preprocessing and score map; and the only way from a file on disk to a [`ModelFile`].
//!
//! Promise: a file is read once, at most as many bytes as the manifest says, and exactly the bytes
//! that were hashed are the bytes that are loaded. They are those of the main file or of a listed
//! alternate, nothing else; either way the network keeps the identity of the main file. Nothing is
//! cached between loads. The manifest and the pack `builtin` are inside the binary, so they can be
//! neither absent nor stale.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::inference::entries::{AlternateEntry, ManifestText, MeshModels, ModelEntry, PackEntry};
use crate::inference::{
    DetectorSpec, EmbeddingSpec, FaceStateSpec, LandmarksSpec, MeshSpec, ModelFile, Normalisation,
    Pack, PadSpec,
};

/// The pack inside the binary.
pub const BUILTIN: &str = "builtin";

/// The pack that a configuration without a word about models means.
pub const STANDARD: &str = "standard";

const TEXT: &str = include_str!("../../models/manifest.toml");

/// The project's own files, by their path in the manifest.
const EMBEDDED: [(&str, &[u8]); 6] = [
    (
        "builtin/builtin_attacks_far.onnx",
        include_bytes!("../../models/builtin/builtin_attacks_far.onnx"),
    ),
    (
        "builtin/builtin_attacks_near.onnx",
        include_bytes!("../../models/builtin/builtin_attacks_near.onnx"),
    ),
    (
        "builtin/builtin_detector_int8.onnx",
        include_bytes!("../../models/builtin/builtin_detector_int8.onnx"),
    ),
    (
        "builtin/builtin_embedding_int8.onnx",
        include_bytes!("../../models/builtin/builtin_embedding_int8.onnx"),
    ),
    (
        "builtin/builtin_landmarks.onnx",
        include_bytes!("../../models/builtin/builtin_landmarks.onnx"),
    ),
    ("builtin/face_state.onnx", include_bytes!("../../models/builtin/face_state.onnx")),
];

/// Why a pack cannot be used.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ManifestError {
    /// The manifest contradicts itself; the embedded one does not (tested).
    #[error("the model manifest is wrong: {reason}")]
    Invalid {
        /// Which entry, and what is wrong with it.
        reason: String,
    },
    /// There is no such pack.
    #[error("there is no model pack `{name}`; choose one of {known}")]
    UnknownPack {
        /// As asked for.
        name: String,
        /// Names that exist.
        known: String,
    },
    /// The pack has no such embedding model.
    #[error("the pack `{pack}` has no embedding model `{name}`; choose one of {known}")]
    UnknownEmbedding {
        /// Name of the pack.
        pack: String,
        /// As asked for.
        name: String,
        /// Names that exist in the pack.
        known: String,
    },
    /// No file of the pack is there.
    #[error(
        "the model pack `{pack}` is not installed in {dir}; run `facelatch models install --pack {pack}`"
    )]
    NotInstalled {
        /// Name of the pack.
        pack: String,
        /// Where it would be.
        dir: PathBuf,
    },
    /// A file is missing or cannot be read.
    #[error("model file {path}: {reason}; run `facelatch models install --pack {pack}`")]
    Unreadable {
        /// Name of the pack.
        pack: String,
        /// Where the file should be.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is not the one in the manifest.
    #[error(
        "model file {path} is not the one in the manifest: expected SHA-256 {expected}, found {found}; \
         it was changed or damaged, put the right one there with `facelatch models install --pack {pack}`"
    )]
    Mismatch {
        /// Name of the pack.
        pack: String,
        /// The offending file.
        path: PathBuf,
        /// As in the manifest; several where alternates are listed.
        expected: String,
        /// As on disk; or its size, when that alone is wrong already.
        found: String,
    },
}

/// The manifest, checked.
#[derive(Clone, Debug)]
pub struct Manifest {
    packs: BTreeMap<String, PackEntry>,
    models: BTreeMap<String, ModelEntry>,
}

impl Manifest {
    /// The manifest inside the binary.
    pub fn embedded() -> &'static Self {
        static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| {
            Manifest::parse(TEXT).expect("the embedded manifest is parsed by a test of this module")
        });
        &MANIFEST
    }

    /// Reads and checks a manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let raw: ManifestText = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if raw.version != 1 {
            return Err(invalid(format!("version {} is not known, only 1", raw.version)));
        }
        for (name, model) in &raw.model {
            model.check().map_err(|reason| invalid(format!("model `{name}`: {reason}")))?;
        }
        let mut owners = BTreeMap::new();
        for (name, hash) in raw.model.iter().flat_map(|(n, m)| m.hashes().map(move |h| (n, h))) {
            // One file is one network: two entries would feed or read it in different ways.
            if let Some(other) = owners.insert(hash, name) {
                return Err(invalid(format!("model `{name}`: {hash} is listed for `{other}` too")));
            }
        }
        let manifest = Self { packs: raw.pack, models: raw.model };
        for (name, pack) in &manifest.packs {
            let checked = manifest.check_pack(pack);
            checked.map_err(|reason| invalid(format!("pack `{name}`: {reason}")))?;
        }
        Ok(manifest)
    }

    /// All packs by name.
    pub fn packs(&self) -> impl Iterator<Item = (&str, &PackEntry)> {
        self.packs.iter().map(|(name, pack)| (name.as_str(), pack))
    }

    /// One pack.
    pub fn pack_entry(&self, name: &str) -> Result<&PackEntry, ManifestError> {
        self.packs.get(name).ok_or_else(|| ManifestError::UnknownPack {
            name: name.to_string(),
            known: list(self.packs.keys()),
        })
    }

    /// The models of a pack, by name.
    pub fn models_of(&self, pack: &str) -> Result<Vec<(&str, &ModelEntry)>, ManifestError> {
        let names = self.pack_entry(pack)?.models();
        // `parse` refuses packs that name models which do not exist.
        Ok(names.filter_map(|name| Some((name, self.models.get(name)?))).collect())
    }

    /// Name of the pack that the daemon runs: the configured one when it is installed; `builtin`, with
    /// its notice, when nobody chose anything (`standard`, default embedding) and nothing of it is
    /// installed. No file is read.
    pub fn active<'a>(
        &self,
        name: &'a str,
        embedding: Option<&str>,
        dir: &Path,
    ) -> Result<&'a str, ManifestError> {
        let nobody_chose = name == STANDARD && embedding.is_none();
        Ok(if nobody_chose && !self.is_there_in_part(name, dir)? { BUILTIN } else { name })
    }

    /// The pack that the daemon runs, by [`Manifest::active`], read and checked. A pack that was
    /// chosen on purpose, is installed in part, or holds a changed file is refused: the templates of
    /// the gallery belong to one embedding model, so another one must never take its place unasked.
    pub fn choose(
        &self,
        name: &str,
        embedding: Option<&str>,
        dir: &Path,
    ) -> Result<Pack, ManifestError> {
        self.pack(self.active(name, embedding, dir)?, embedding, dir)
    }

    /// Reads and checks the files of a pack that recognition needs, with the named embedding model
    /// or the default one. `builtin` does not look at `dir`.
    pub fn pack(
        &self,
        name: &str,
        embedding: Option<&str>,
        dir: &Path,
    ) -> Result<Pack, ManifestError> {
        let entry = self.pack_entry(name)?;
        let embedding = embedding.unwrap_or(entry.embeddings[0].as_str());
        self.check_embedding(name, embedding)?;
        if name != BUILTIN && !self.is_there_in_part(name, dir)? {
            return Err(ManifestError::NotInstalled { pack: name.to_string(), dir: dir.into() });
        }
        let pad = entry.pad.iter().map(|model| self.pad(name, model, dir));
        let face_state = entry.face_state.as_ref().map(|model| self.face_state(name, model, dir));
        let mesh = entry.mesh.as_ref().map(|models| self.mesh(name, models, dir));
        let landmarks = entry.landmarks.as_ref().map(|model| self.landmarks(name, model, dir));
        Ok(Pack {
            name: name.to_string(),
            notice: entry.notice.clone(),
            is_for_door: !entry.not_for_door,
            detector: self.detector(name, &entry.detector, dir)?,
            embedding: self.embedding(name, embedding, dir)?,
            pad: pad.collect::<Result<_, _>>()?,
            pad_score_min: entry.pad_score_min,
            face_state: face_state.transpose()?,
            mesh: mesh.transpose()?,
            landmarks: landmarks.transpose()?,
        })
    }

    /// Whether the pack has the embedding model.
    pub fn check_embedding(&self, pack: &str, embedding: &str) -> Result<(), ManifestError> {
        let own = &self.pack_entry(pack)?.embeddings;
        if own.iter().any(|name| name == embedding) {
            return Ok(());
        }
        Err(ManifestError::UnknownEmbedding {
            pack: pack.to_string(),
            name: embedding.to_string(),
            known: list(own),
        })
    }

    /// Reads and checks one file of a pack.
    pub fn file(&self, pack: &str, model: &str, dir: &Path) -> Result<ModelFile, ManifestError> {
        let entry = self.known_model(model)?;
        let bytes = match EMBEDDED.iter().find(|(file, _)| *file == entry.file) {
            Some((file, bytes)) => {
                let found = sha256_hex(bytes);
                if found != entry.sha256 {
                    return Err(mismatch(pack, Path::new(file), entry, found));
                }
                Arc::from(*bytes)
            }
            None => read_checked(pack, &dir.join(&entry.file), entry)?.bytes,
        };
        Ok(ModelFile {
            name: model.to_string(),
            sha256: entry.sha256.clone(),
            bytes,
            input: entry.input.name.clone(),
        })
    }

    /// Whether any file of the pack is in `dir`. A folder that may not be read is an error, not an
    /// empty one: guessing "not installed" would swap the models without a word.
    fn is_there_in_part(&self, pack: &str, dir: &Path) -> Result<bool, ManifestError> {
        for (_, model) in self.models_of(pack)? {
            let path = dir.join(&model.file);
            if path.try_exists().map_err(|error| unreadable(pack, &path, &error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn detector(&self, pack: &str, model: &str, dir: &Path) -> Result<DetectorSpec, ManifestError> {
        let part = part(model, "detector", self.known_model(model)?.detector.as_ref())?;
        Ok(DetectorSpec { file: self.file(pack, model, dir)?, confidence_min: part.confidence_min })
    }

    fn embedding(
        &self,
        pack: &str,
        model: &str,
        dir: &Path,
    ) -> Result<EmbeddingSpec, ManifestError> {
        let entry = self.known_model(model)?;
        let part = part(model, "embedding", entry.embedding.as_ref())?;
        Ok(EmbeddingSpec {
            file: self.file(pack, model, dir)?,
            normalisation: normalisation(model, entry).map_err(invalid)?,
            side: part.side,
            template: part.template,
            output: entry.outputs[0].clone(),
            dimension: part.dimension,
            score_map: part.score_map.clone(),
            tail: Arc::new(part.tail.clone()),
        })
    }

    fn pad(&self, pack: &str, model: &str, dir: &Path) -> Result<PadSpec, ManifestError> {
        let entry = self.known_model(model)?;
        let part = part(model, "pad", entry.pad.as_ref())?;
        let side = entry.input.square_side();
        Ok(PadSpec {
            file: self.file(pack, model, dir)?,
            normalisation: normalisation(model, entry).map_err(invalid)?,
            side: side.ok_or_else(|| invalid(format!("model `{model}` has no square input")))?,
            crop_scale: part.crop_scale,
        })
    }

    fn face_state(
        &self,
        pack: &str,
        model: &str,
        dir: &Path,
    ) -> Result<FaceStateSpec, ManifestError> {
        let entry = self.known_model(model)?;
        let part = part(model, "face_state", entry.face_state.as_ref())?;
        Ok(FaceStateSpec {
            file: self.file(pack, model, dir)?,
            normalisation: normalisation(model, entry).map_err(invalid)?,
            side: part.side,
            template: part.template,
            eyes_closed_min: part.eyes_closed_min,
            covered_min: part.covered_min,
        })
    }

    fn mesh(&self, pack: &str, models: &MeshModels, dir: &Path) -> Result<MeshSpec, ManifestError> {
        Ok(MeshSpec {
            file: self.file(pack, &models.points, dir)?,
            blendshapes: self.file(pack, &models.blendshapes, dir)?,
        })
    }

    fn landmarks(
        &self,
        pack: &str,
        model: &str,
        dir: &Path,
    ) -> Result<LandmarksSpec, ManifestError> {
        let entry = self.known_model(model)?;
        let part = part(model, "landmarks", entry.landmarks.as_ref())?;
        Ok(LandmarksSpec {
            file: self.file(pack, model, dir)?,
            normalisation: normalisation(model, entry).map_err(invalid)?,
            side: part.side,
            template: part.template,
        })
    }

    fn known_model(&self, model: &str) -> Result<&ModelEntry, ManifestError> {
        self.models.get(model).ok_or_else(|| invalid(format!("there is no model `{model}`")))
    }

    fn check_pack(&self, pack: &PackEntry) -> Result<(), String> {
        if pack.embeddings.is_empty() {
            return Err("names no embedding model".into());
        }
        if !(0.0..=1.0).contains(&pack.pad_score_min) {
            return Err(format!("pad_score_min is {}, not within 0..=1", pack.pad_score_min));
        }
        if let Some(name) = pack.models().find(|name| !self.models.contains_key(*name)) {
            return Err(format!("there is no model `{name}`"));
        }
        let has = |names: &[String], test: fn(&ModelEntry) -> bool, what: &str| {
            let lacking = names.iter().find(|name| !test(&self.models[*name]));
            lacking.map_or(Ok(()), |name| Err(format!("model `{name}` has no section `{what}`")))
        };
        has(std::slice::from_ref(&pack.detector), |m| m.detector.is_some(), "detector")?;
        has(&pack.embeddings, |m| m.embedding.is_some(), "embedding")?;
        has(pack.face_state.as_slice(), |m| m.face_state.is_some(), "face_state")?;
        has(pack.landmarks.as_slice(), |m| m.landmarks.is_some(), "landmarks")?;
        has(&pack.pad, |m| m.pad.is_some(), "pad")?;
        // The mesh's input has its channels last, and expressions are read off no picture.
        let pictures = pack.embeddings.iter().chain(&pack.face_state).chain(&pack.landmarks);
        for name in pictures.chain(&pack.pad) {
            normalisation(name, &self.models[name])?;
        }
        Ok(())
    }
}

/// Whether the file of a model is inside the binary.
pub fn is_embedded(entry: &ModelEntry) -> bool {
    EMBEDDED.iter().any(|(file, _)| *file == entry.file)
}

/// Lower-case hex SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A file whose bytes are exactly those of the manifest.
pub struct CheckedFile<'a> {
    /// Its content.
    pub bytes: Arc<[u8]>,
    /// Which alternate it is; `None` for the main file.
    pub alternate: Option<&'a AlternateEntry>,
}

/// Reads the file at `path` and answers its bytes when they are exactly those of `entry`, of the
/// main file or an alternate; `pack` names the remedy in the error.
pub fn read_checked<'a>(
    pack: &str,
    path: &Path,
    entry: &'a ModelEntry,
) -> Result<CheckedFile<'a>, ManifestError> {
    let failed = |error: std::io::Error| unreadable(pack, path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let size_max = entry.sizes().max().unwrap_or(entry.size);
    if size > size_max {
        let found = format!("a file of {size} bytes instead of {size_max}");
        return Err(mismatch(pack, path, entry, found));
    }
    // Filled in place: a network of 5 MB needs 5 MB, not 10.
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, size as usize).collect();
    if let Some(space) = Arc::get_mut(&mut bytes) {
        file.read_exact(space).map_err(failed)?;
    }
    let found = sha256_hex(&bytes);
    let alternate = entry.alternate.iter().find(|alternate| alternate.sha256 == found);
    if found == entry.sha256 || alternate.is_some() {
        return Ok(CheckedFile { bytes, alternate });
    }
    Err(mismatch(pack, path, entry, found))
}

fn normalisation(model: &str, entry: &ModelEntry) -> Result<Normalisation, String> {
    let given = entry.input.normalisation();
    given.ok_or_else(|| format!("model `{model}` has no order, mean and std"))
}

fn part<'a, T>(model: &str, what: &str, part: Option<&'a T>) -> Result<&'a T, ManifestError> {
    part.ok_or_else(|| invalid(format!("model `{model}` has no section `{what}`")))
}

fn unreadable(pack: &str, path: &Path, error: &std::io::Error) -> ManifestError {
    ManifestError::Unreadable {
        pack: pack.to_string(),
        path: path.to_path_buf(),
        reason: match error.kind() {
            ErrorKind::NotFound => "is missing".to_string(),
            _ => error.to_string(),
        },
    }
}

fn mismatch(pack: &str, path: &Path, entry: &ModelEntry, found: String) -> ManifestError {
    ManifestError::Mismatch {
        pack: pack.to_string(),
        path: path.to_path_buf(),
        expected: entry.hashes().collect::<Vec<_>>().join(" or "),
        found,
    }
}

fn invalid(reason: String) -> ManifestError {
    ManifestError::Invalid { reason }
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A manifest with one small pack `standard` of three files, beside the embedded `builtin`.

    use super::*;

    /// Name and file of each model.
    pub const FILES: [(&str, &str); 3] = [
        ("detector", "standard/detector.onnx"),
        ("embedding", "standard/embedding.onnx"),
        ("pad", "standard/pad.onnx"),
    ];

    /// The right bytes of a model.
    pub fn bytes(name: &str) -> Vec<u8> {
        format!("these are the weights of the {name}").into_bytes()
    }

    /// The bytes that are accepted for the embedding beside the right ones; longer than those.
    pub fn alternate_bytes() -> Vec<u8> {
        bytes("embedding, converted otherwise")
    }

    pub fn sha256(name: &str) -> String {
        sha256_hex(&bytes(name))
    }

    /// The manifest; `urls` are the addresses of the detector.
    pub fn manifest(urls: &[&str]) -> Manifest {
        Manifest::parse(&text(urls)).unwrap()
    }

    pub fn text(urls: &[&str]) -> String {
        let builtin = TEXT.find("[model.builtin-detector]").map(|at| &TEXT[at..]).unwrap();
        let pack = "summary = 's'\nlicence = 'MIT'\npad_score_min = 0.5\n";
        let model = |name: &str| {
            format!(
                "[model.{name}]\nfile = 'standard/{name}.onnx'\nsize = {}\nsha256 = '{}'\n\
                 licence = 'MIT'\nupstream = {{ repository = 'r', path = 'p' }}\n\
                 input = {{ name = 'input', shape = [1, 3, 4, 4], order = 'rgb', mean = [0, 0, 0], \
                 std = [1, 1, 1] }}\noutputs = ['out']\n",
                bytes(name).len(),
                sha256(name),
            )
        };
        format!(
            "version = 1\n[pack.standard]\n{pack}detector = 'detector'\nembeddings = ['embedding']\n\
             pad = ['pad']\n[pack.builtin]\n{pack}notice = 'small'\n\
             detector = 'builtin-detector'\nembeddings = ['builtin-embedding']\npad = []\n\
             {}url = {urls:?}\ndetector = {{ confidence_min = 0.5 }}\n\
             {}embedding = {{ dimension = 8, side = 4, template = [[0, 0], [1, 0], [1, 1], [0, 1], \
             [0, 0]], score_map = [[-1, 0], [1, 1]], tail = {{ correlation = 0.8, comparisons = 9999, \
             knots = [[0.1, -1], [0.5, -3]] }} }}\n\
             alternate = [{{ size = {}, sha256 = '{}', made_by = 'the converter' }}]\n\
             {}made_by = 'made by hand'\nsource = {{ file = 'pad.pth', sha256 = '{}', \
             url = 'https://example.org/pad' }}\npad = {{ crop_scale = 2.7 }}\n{builtin}",
            model("detector"),
            model("embedding"),
            alternate_bytes().len(),
            sha256_hex(&alternate_bytes()),
            model("pad"),
            sha256("pad"),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::access::identity::IdentityOptions;
    use crate::access::identity::IdentityRules;
    use crate::face::comparison::Score;
    use crate::inference::ChannelOrder;

    /// A folder with the fixture's files.
    fn installed() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("standard")).unwrap();
        for (name, file) in fixture::FILES {
            fs::write(folder.path().join(file), fixture::bytes(name)).unwrap();
        }
        folder
    }

    fn shared() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models")
    }

    #[test]
    fn the_embedded_manifest_is_complete() {
        let manifest = Manifest::embedded();
        let names: Vec<&str> = manifest.packs().map(|(name, _)| name).collect();
        assert_eq!(names, ["builtin", "noncommercial", "standard"]);
        for (pack, _) in manifest.packs() {
            for (name, model) in manifest.models_of(pack).unwrap() {
                assert_eq!(is_embedded(model), name.starts_with("builtin-"), "{name}");
                let told = !model.url.is_empty() || model.made_by.is_some() || is_embedded(model);
                assert!(told, "{name} says neither where it is nor how it is made");
                for url in &model.url {
                    let commit = model.upstream.commit.as_deref().unwrap_or("-");
                    assert!(url.starts_with("https://") && commit.len() == 40, "{name}: {url}");
                    assert!(url.contains(commit), "{name}: {url} is not at the pinned commit");
                }
            }
        }
        let shared = manifest.pack_entry("noncommercial").unwrap();
        assert!(shared.must_accept.is_some());
        assert!(manifest.pack_entry(STANDARD).unwrap().must_accept.is_none());
    }

    /// Tail and score map of a model are measured on overlapping people, so they agree on what 0.70
    /// means; and a door of ten thousand references is within the reach of every tail.
    #[test]
    fn every_tail_agrees_with_its_score_map_and_reaches_far() {
        let manifest = Manifest::embedded();
        for (pack, entry) in manifest.packs() {
            for name in &entry.embeddings {
                let embedding = manifest.models[name].embedding.as_ref().unwrap();
                let score = Score::new(0.7).unwrap();
                let fmr = embedding.tail.fmr(embedding.score_map.cosine(score));
                assert!((3e-5..3e-4).contains(&fmr), "{pack} {name}: {fmr}");
                assert!(embedding.tail.fmr_measured_min() <= 1.1e-5, "{pack} {name}");
                let options = IdentityOptions {
                    false_accept_per_attempt: 1e-3,
                    references: 10_000,
                    score_min: score,
                };
                let tail = Arc::new(embedding.tail.clone());
                let map = Arc::new(embedding.score_map.clone());
                let rules = IdentityRules::new(tail, map, options);
                assert_eq!(rules.supported(), Ok(()), "{pack} {name}");
            }
        }
    }

    #[test]
    fn every_score_map_calls_a_rare_false_match_0_7() {
        let manifest = Manifest::embedded();
        for (pack, entry) in manifest.packs() {
            for name in &entry.embeddings {
                let map = &manifest.models[name].embedding.as_ref().unwrap().score_map;
                let cosine = map.cosine(Score::new(0.7).unwrap());
                assert!((0.3..0.6).contains(&cosine), "{pack} {name}: {cosine}");
                assert!((map.score(1.0).value() - 1.0).abs() < 1e-6, "{pack} {name}");
                assert!(map.cosine(Score::new(0.67).unwrap()) < cosine, "{pack} {name}");
            }
        }
    }

    #[test]
    fn hashes_are_those_of_the_files_at_hand() {
        let Ok(sums) = fs::read_to_string(shared().join("SHA256SUMS")) else {
            eprintln!("SKIPPED hashes_are_those_of_the_files_at_hand: no {}", shared().display());
            return;
        };
        let known: BTreeMap<&str, &str> = sums
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(hash, file)| (file.trim(), hash))
            .collect();
        for (name, model) in &Manifest::embedded().models {
            if is_embedded(model) {
                continue;
            }
            assert_eq!(known.get(model.file.as_str()), Some(&model.sha256.as_str()), "{name}");
            let path = shared().join(&model.file);
            assert!(read_checked(STANDARD, &path, model).is_ok(), "{name}");
            if let Some(source) = &model.source {
                let file = format!("original/{}", source.file);
                assert_eq!(known.get(file.as_str()), Some(&source.sha256.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn the_real_packs_load_with_each_embedding() {
        if !shared().is_dir() {
            eprintln!("SKIPPED the_real_packs_load_with_each_embedding: no {}", shared().display());
            return;
        }
        let manifest = Manifest::embedded();
        let cases = [
            ("standard", None, "mobilefacenet-int8", 112, 128),
            ("standard", Some("mobilefacenet"), "mobilefacenet", 112, 128),
            ("standard", Some("intel-0095"), "intel-0095", 128, 256),
            ("noncommercial", None, "edgeface-xs", 112, 512),
        ];
        for (name, embedding, model, side, dimension) in cases {
            let pack = manifest.choose(name, embedding, &shared()).unwrap();
            assert_eq!((pack.name.as_str(), pack.embedding.file.name.as_str()), (name, model));
            assert_eq!((pack.embedding.side, pack.embedding.dimension), (side, dimension));
            let scales: Vec<f32> = pack.pad.iter().map(|pad| pad.crop_scale).collect();
            assert_eq!(scales, [2.7, 4.0]);
        }
        let standard = manifest.choose("standard", None, &shared()).unwrap();
        assert_eq!(standard.embedding.normalisation.order, ChannelOrder::Rgb);
        assert_eq!(standard.detector.confidence_min, 0.6);
        let standard = manifest.pack(STANDARD, None, &shared()).unwrap();
        assert!(standard.face_state.is_some() && standard.mesh.is_some());
    }

    #[test]
    fn builtin_needs_no_folder_and_says_what_it_is() {
        let manifest = Manifest::embedded();
        let pack = manifest.pack(BUILTIN, None, Path::new("/nowhere")).unwrap();
        assert!(manifest.models_of(BUILTIN).unwrap().iter().all(|(_, model)| is_embedded(model)));
        assert!(!pack.is_for_door);
        assert_eq!(pack.embedding.file.sha256, sha256_hex(&pack.embedding.file.bytes));
        let notice = pack.notice.unwrap();
        assert!(notice.contains("facelatch models install") && notice.contains("not for a door"));
        // What it says of liveness has to change together with what the pack holds.
        let entry = manifest.pack_entry(BUILTIN).unwrap();
        assert!(entry.has_liveness() && notice.contains("a weaker liveness check"), "{notice}");
        assert!(entry.summary.contains("its liveness check included"), "{}", entry.summary);
    }

    #[test]
    fn an_alternate_is_loaded_under_the_identity_of_the_main_file() {
        let manifest = fixture::manifest(&[]);
        let folder = installed();
        let place = folder.path().join("standard/embedding.onnx");
        let loaded = || manifest.choose(STANDARD, None, folder.path()).map(|p| p.embedding.file);
        let main = loaded().unwrap();
        fs::write(&place, fixture::alternate_bytes()).unwrap();
        let other = loaded().unwrap();
        assert_eq!(other.bytes.to_vec(), fixture::alternate_bytes());
        assert_eq!((&other.sha256, &main.sha256), (&main.sha256, &fixture::sha256("embedding")));
        for at in 0..fixture::alternate_bytes().len() {
            let mut flipped = fixture::alternate_bytes();
            flipped[at] ^= 1;
            fs::write(&place, &flipped).unwrap();
            let text = loaded().map(|file| file.name).unwrap_err().to_string();
            let both = format!("{} or {}", main.sha256, sha256_hex(&fixture::alternate_bytes()));
            assert!(text.contains(&both) && text.contains(&sha256_hex(&flipped)), "{text}");
        }
        // It is an alternate of this model only.
        fs::write(&place, fixture::bytes("embedding")).unwrap();
        fs::write(folder.path().join("standard/pad.onnx"), fixture::alternate_bytes()).unwrap();
        let refused = loaded().map(|file| file.name).unwrap_err();
        assert!(matches!(refused, ManifestError::Mismatch { .. }), "{refused}");
    }

    #[test]
    fn alternates_are_the_files_that_the_tools_document() {
        let page = include_str!("../../models/tools/README.md").replace(',', "");
        let mut with_alternates = Vec::new();
        for (name, model) in &Manifest::embedded().models {
            for other in &model.alternate {
                let file = model.file.rsplit('/').next().unwrap();
                let row = format!("| `{file}` | {} | `{}` |", other.size, other.sha256);
                assert!(page.contains(&row), "{name}: `{row}` is not in models/tools/README.md");
                assert_eq!(other.made_by, format!("models/tools/convert.py {name}"));
                with_alternates.push(name.as_str());
            }
        }
        // An int8 file computes something else than its twin: it would need its own identity.
        let floats =
            ["blendshapes", "facemesh", "minifasnet-v1se", "minifasnet-v2", "mobilefacenet"];
        assert_eq!(with_alternates, floats);
    }

    #[test]
    fn which_pack_runs() {
        let manifest = fixture::manifest(&[]);
        let empty = tempfile::tempdir().unwrap();
        let full = installed();
        let name = |pack, embedding, dir: &Path| {
            manifest.choose(pack, embedding, dir).map(|pack| pack.name)
        };
        assert_eq!(name(STANDARD, None, full.path()), Ok(STANDARD.to_string()));
        assert_eq!(name(STANDARD, None, empty.path()), Ok(BUILTIN.to_string()));
        assert_eq!(name(BUILTIN, None, full.path()), Ok(BUILTIN.to_string()));
        let not_installed =
            ManifestError::NotInstalled { pack: STANDARD.into(), dir: empty.path().into() };
        // An embedding that was chosen on purpose is never replaced unasked.
        assert_eq!(name(STANDARD, Some("embedding"), empty.path()), Err(not_installed));
        assert!(matches!(name("huge", None, full.path()), Err(ManifestError::UnknownPack { .. })));
        let unknown = name(STANDARD, Some("huge"), full.path()).unwrap_err();
        assert!(unknown.to_string().contains("choose one of `embedding`"), "{unknown}");
        let chosen = Manifest::embedded().choose("noncommercial", None, empty.path());
        let chosen = chosen.map(|pack| pack.name).unwrap_err().to_string();
        assert!(chosen.contains("facelatch models install --pack noncommercial"), "{chosen}");
    }

    #[test]
    fn a_pack_that_is_there_in_part_is_refused_by_file() {
        for (_, file) in fixture::FILES {
            let folder = installed();
            fs::remove_file(folder.path().join(file)).unwrap();
            let error = fixture::manifest(&[]).choose(STANDARD, None, folder.path());
            let error = error.map(|pack| pack.name).unwrap_err();
            assert!(matches!(error, ManifestError::Unreadable { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(file) && text.contains("is missing"), "{text}");
            assert!(text.contains("facelatch models install --pack standard"), "{text}");
        }
    }

    #[test]
    fn a_changed_file_is_refused_with_both_hashes() {
        let right = fixture::bytes("pad");
        let longer = [right.clone(), vec![0]].concat();
        let shorter = right[..right.len() - 1].to_vec();
        let cases =
            [(shorter, true), (longer, false), (vec![0; right.len()], true), (vec![], true)];
        for (bytes, is_hashed) in cases {
            let folder = installed();
            fs::write(folder.path().join("standard/pad.onnx"), &bytes).unwrap();
            let error = fixture::manifest(&[]).choose(STANDARD, None, folder.path());
            let text = error.map(|pack| pack.name).unwrap_err().to_string();
            assert!(text.contains("standard/pad.onnx"), "{text}");
            assert!(text.contains(&fixture::sha256("pad")), "{text}");
            let found = if is_hashed { sha256_hex(&bytes) } else { bytes.len().to_string() };
            assert!(text.contains(&found), "{text}");
            assert!(text.contains("facelatch models install"), "{text}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_looked_into_is_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        // A file where the folder should be answers "not a directory", as root too.
        fs::write(folder.path().join("models"), b"").unwrap();
        let outcome = fixture::manifest(&[]).choose(STANDARD, None, &folder.path().join("models"));
        let outcome = outcome.map(|pack| pack.name);
        assert!(matches!(outcome, Err(ManifestError::Unreadable { .. })), "{outcome:?}");
    }

    #[test]
    fn manifests_that_contradict_themselves_are_refused() {
        let good = fixture::text(&[]);
        assert!(Manifest::parse(&good).is_ok());
        let cases = [
            ("version = 1", "version = 2", "version 2"),
            ("'standard/pad.onnx'", "'../pad.onnx'", "not a path below"),
            ("'standard/pad.onnx'", "'/etc/pad.onnx'", "not a path below"),
            ("'standard/pad.onnx'", "''", "not a path below"),
            ("pad = ['pad']", "pad = ['pat']", "no model `pat`"),
            ("pad = ['pad']", "pad = ['detector']", "no section `pad`"),
            ("embeddings = ['embedding']", "embeddings = []", "names no embedding"),
            ("embeddings = ['embedding']", "embeddings = ['pad']", "no section `embedding`"),
            ("pad_score_min = 0.5", "pad_score_min = 1.5", "within 0..=1"),
            ("confidence_min = 0.5", "confidence_min = -1", "within 0..=1"),
            ("crop_scale = 2.7", "crop_scale = nan", "crop_scale"),
            ("std = [1, 1, 1]", "std = [1, 0, 1]", "std never 0"),
            ("side = 4", "side = 5", "side"),
            ("dimension = 8", "dimension = 0", "dimension"),
            ("score_map = [[-1, 0]", "score_map = [[1, 0]", "must both increase"),
            ("knots = [[0.1, -1]", "knots = [[0.6, -1]", "breaks the order"),
            ("comparisons = 9999", "comparisons = 999", "rarer than one of the comparisons"),
            ("correlation = 0.8", "correlation = 1.0", "within 0.2..1"),
            ("made_by", "made_of", "unknown field"),
            ("alternate = [{ size = 59", "alternate = [{ size = 0", "size 0 is not within"),
        ];
        for (from, to, reason) in cases {
            assert!(good.contains(from), "{from}");
            let error = Manifest::parse(&good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(reason), "{from} -> {to}: {error}");
        }
        let hash = fixture::sha256("pad");
        let upper = good.replace(&hash, &hash.to_uppercase());
        assert!(Manifest::parse(&upper).unwrap_err().to_string().contains("lower-case"));
        let alternate = sha256_hex(&fixture::alternate_bytes());
        for (other, reason) in [
            (alternate.to_uppercase(), "lower-case"),
            (fixture::sha256("pad"), "is listed for `embedding` too"),
            (fixture::sha256("embedding"), "is listed for `embedding` too"),
        ] {
            let error = Manifest::parse(&good.replace(&alternate, &other)).unwrap_err().to_string();
            assert!(error.contains(reason), "{other}: {error}");
        }
    }

    /// The fixture with a landmark network.
    fn with_landmarks() -> String {
        let hash = sha256_hex(b"points");
        fixture::text(&[]).replacen("pad = ['pad']", "pad = ['pad']\nlandmarks = 'points'", 1)
            + &format!(
                "\n[model.points]\nfile = 'standard/points.onnx'\nsize = 6\nsha256 = '{hash}'\n\
                 licence = 'MIT'\nupstream = {{ repository = 'r', path = 'p' }}\n\
                 input = {{ name = 'x', shape = [1, 3, 9, 9], order = 'bgr', mean = [1, 2, 3], \
                 std = [4, 5, 6] }}\noutputs = ['offsets']\n\
                 landmarks = {{ side = 9, template = [[2, 3], [6, 3], [4, 5], [3, 7], [5, 7]] }}\n"
            )
    }

    #[test]
    fn a_pack_may_name_a_landmark_network() {
        let folder = installed();
        let manifest = Manifest::parse(&with_landmarks()).unwrap();
        let error = manifest.choose(STANDARD, None, folder.path());
        let error = error.map(|pack| pack.name).unwrap_err().to_string();
        assert!(error.contains("standard/points.onnx") && error.contains("is missing"), "{error}");
        fs::write(folder.path().join("standard/points.onnx"), b"points").unwrap();
        let pack = manifest.choose(STANDARD, None, folder.path()).unwrap();
        let landmarks = pack.landmarks.unwrap();
        assert_eq!((landmarks.side, landmarks.template[4]), (9, [5.0, 7.0]));
        assert_eq!(landmarks.normalisation.order, ChannelOrder::Bgr);
        assert_eq!((landmarks.file.name.as_str(), landmarks.file.input.as_str()), ("points", "x"));
        let plain = fixture::manifest(&[]).choose(STANDARD, None, folder.path()).unwrap();
        assert!(plain.landmarks.is_none());
        assert_eq!((plain.pad[0].side, plain.pad[0].normalisation.order), (4, ChannelOrder::Rgb));
    }

    #[test]
    fn networks_that_cannot_be_fed_are_refused() {
        let good = with_landmarks();
        for (from, to, reason) in [
            ("landmarks = 'points'", "landmarks = 'pad'", "`pad` has no section `landmarks`"),
            ("landmarks = 'points'", "landmarks = 'point'", "no model `point`"),
            ("side = 9", "side = 8", "side is not the width of the input"),
            ("[[2, 3], [6, 3]", "[[2, 3], [2, 3]", "not apart"),
            ("[[2, 3], [6, 3]", "[[2, 3], [inf, 3]", "not apart"),
            ("[[2, 3], [6, 3]", "[[2, 3], [nan, 3]", "not apart"),
            ("order = 'bgr', ", "", "`points` has no order, mean and std"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = Manifest::parse(&good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(reason), "{from} -> {to}: {error}");
        }
        // Of the attack detector, whose entry comes last but for the landmarks and the own models.
        let (before, pad) = good.split_once("[model.pad]").unwrap();
        for (from, to, reason) in [
            ("[1, 3, 4, 4]", "[1, 3, 4, 5]", "not [1, 3, side, side]"),
            ("[1, 3, 4, 4]", "[1, 4, 4, 3]", "not [1, 3, side, side]"),
            ("[1, 3, 4, 4]", "[3, 4, 4]", "not [1, 3, side, side]"),
            ("mean = [0, 0, 0], ", "", "`pad` has no order, mean and std"),
        ] {
            assert!(pad.contains(from), "{from}");
            let text = format!("{before}[model.pad]{}", pad.replacen(from, to, 1));
            let error = Manifest::parse(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{from} -> {to}: {error}");
        }
    }

    proptest! {
        #[test]
        fn one_flipped_bit_anywhere_is_noticed(at in 0_usize..30, bit in 0_u8..8) {
            let folder = installed();
            let mut bytes = fixture::bytes("embedding");
            bytes[at] ^= 1 << bit;
            fs::write(folder.path().join("standard/embedding.onnx"), bytes).unwrap();
            let outcome = fixture::manifest(&[]).choose(STANDARD, None, folder.path());
            let outcome = outcome.map(|pack| pack.name);
            let noticed = matches!(outcome, Err(ManifestError::Mismatch { .. }));
            prop_assert!(noticed, "{outcome:?}");
        }
    }
}
