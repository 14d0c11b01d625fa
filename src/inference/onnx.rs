//! Networks by ONNX Runtime, loaded at run time as a shared library.
//!
//! The library is looked for in a fixed order and loaded once per process; a missing one is an
//! error that names every place. Where an administrator names a file (configuration or
//! `ORT_DYLIB_PATH`), only that file counts. Places that another user could fill, such as the
//! current directory, are never looked at: the library runs with the daemon's rights.
//!
//! Each session runs one operator after the other on as many threads as it is told, without
//! spinning: between two inferences a board's cores belong to others.
//!
//! The memory arena stays on and memory patterns are off. Measured on x86-64 with this runtime
//! (1.32.0, through Python, one thread, `YuNet` at 320 and 640, `MobileFaceNet` int8 and both
//! `MiniFASNet` in one process, two runs each), growth of the resident memory over the bare
//! process and median times: arena and patterns +59 MB; arena alone +53 MB; patterns alone +107 and
//! +115 MB; neither +126 and +131 MB. Without the arena every run goes through malloc, which keeps
//! more pages than it returns. Times of the arena's two settings were equal within the noise
//! (`YuNet` 320: 3.2 to 3.4 ms).

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::CPU;
use ort::session::Session;
use ort::session::SessionInputValue;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, TensorRef, ValueType};

use crate::inference::{InferenceError, Model, ModelFile, ModelLoader, Outputs, Tensor};

/// Where the package puts the library.
const PACKAGED: &str = "/usr/lib/facelatch/libonnxruntime.so";

/// Names that the system's loader may know.
const SYSTEM_NAMES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

/// How many directories above the executable may be the source tree: `target/<profile>/deps` is 3.
const TREE_DEPTH_MAX: usize = 5;

/// The runtime of this process and the file it came from. It is kept for good: ONNX Runtime allows
/// one environment per process, ever.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Loads networks with ONNX Runtime.
pub struct OnnxLoader {
    environment: Environment,
    library: PathBuf,
}

impl OnnxLoader {
    /// Finds and loads the runtime; `runtime` is the configured library, if any. Repeating it is
    /// cheap and answers the runtime that is loaded already.
    pub fn new(runtime: Option<&Path>) -> Result<Self, InferenceError> {
        let explicit = match runtime {
            Some(path) => Some((path.to_path_buf(), "models.runtime")),
            None => env::var_os("ORT_DYLIB_PATH")
                .filter(|path| !path.is_empty())
                .map(|path| (PathBuf::from(path), "ORT_DYLIB_PATH")),
        };
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates = match explicit {
            Some((path, origin)) if !path.is_file() => {
                let reason = format!("{origin} names {}, which is not a file", path.display());
                return Err(InferenceError::Runtime { reason });
            }
            Some((path, _)) => vec![path],
            None => candidates(),
        };
        if loaded.is_none() {
            *loaded = Some(load_first(&candidates)?);
        }
        match &*loaded {
            Some((library, environment)) => {
                Ok(Self { environment: environment.clone(), library: library.clone() })
            }
            None => Err(InferenceError::Runtime { reason: "is not loaded".into() }),
        }
    }

    /// The library in use: a path, or a name that the system's loader resolved.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Version and build of the library in use, as it tells itself.
    pub fn build_info(&self) -> &'static str {
        // The environment of `self` proves that the library is loaded, so this cannot panic.
        ort::info()
    }
}

impl ModelLoader for OnnxLoader {
    fn load(&self, file: &ModelFile, threads: usize) -> Result<Box<dyn Model>, InferenceError> {
        let load_error = |reason: String| InferenceError::Load { model: file.name.clone(), reason };
        let session = build_session(&self.environment, &file.bytes, threads.max(1))
            .map_err(|error| load_error(error.to_string()))?;
        let names: Vec<&str> = session.inputs().iter().map(ort::value::Outlet::name).collect();
        let [input] = session.inputs() else {
            return Err(load_error(format!("it has the inputs {names:?}, not one")));
        };
        if input.name() != file.input {
            let reason = format!("its input is `{}`, not `{}`", input.name(), file.input);
            return Err(load_error(reason));
        }
        if let Some(bad) = session.outputs().iter().chain([input]).find(|end| !is_f32(end.dtype()))
        {
            let reason = format!("`{}` is not a tensor of f32: {}", bad.name(), bad.dtype());
            return Err(load_error(reason));
        }
        Ok(Box::new(OnnxModel { session, name: file.name.clone(), input: file.input.clone() }))
    }
}

/// One session.
struct OnnxModel {
    session: Session,
    name: String,
    input: String,
}

impl Model for OnnxModel {
    fn run(&mut self, input: &Tensor) -> Result<Outputs, InferenceError> {
        let name = &self.name;
        let run_error = |reason: String| InferenceError::Run { model: name.clone(), reason };
        let failed = |error: ort::Error| run_error(error.to_string());
        // The runtime would read past the end of the values.
        if input.shape.iter().product::<usize>() != input.values.len() || input.values.is_empty() {
            let reason = format!("{} values do not fill {:?}", input.values.len(), input.shape);
            return Err(run_error(reason));
        }
        let view = (input.shape.clone(), input.values.as_slice());
        let view = TensorRef::from_array_view(view).map_err(failed)?;
        let inputs = vec![(self.input.as_str(), SessionInputValue::from(view))];
        let answers = self.session.run(inputs).map_err(failed)?;
        let mut outputs = Vec::with_capacity(answers.len());
        for (name, value) in &answers {
            let (shape, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
            let shape = shape.iter().map(|&extent| extent as usize).collect();
            outputs.push((name.to_string(), Tensor { shape, values: values.to_vec() }));
        }
        Ok(Outputs(outputs))
    }
}

fn build_session(
    environment: &Environment,
    bytes: &[u8],
    threads: usize,
) -> Result<Session, ort::Error> {
    Session::builder(environment)?
        .with_execution_providers([CPU::default().with_arena_allocator(true).build()])?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_intra_op_spinning(false)?
        .with_memory_pattern(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .commit_from_memory(bytes)
}

fn is_f32(kind: &ValueType) -> bool {
    matches!(kind, ValueType::Tensor { ty: TensorElementType::Float32, .. })
}

fn load_first(candidates: &[PathBuf]) -> Result<(PathBuf, Environment), InferenceError> {
    let mut tried = Vec::new();
    for path in candidates {
        // A bare name is the system loader's business; a path that is not there needs no attempt.
        if path.components().count() > 1 && !path.is_file() {
            tried.push(format!("{} (absent)", path.display()));
            continue;
        }
        let environment =
            ort::init_from(path).map_err(|error| error.to_string()).and_then(|init| {
                // Telemetry of Linux is decided before, by the environment; see `cli::quiet`.
                let environment = init.with_name("facelatch").with_telemetry(false).build();
                environment.map_err(|error| error.to_string())
            });
        match environment {
            Ok(environment) => return Ok((path.clone(), environment)),
            Err(reason) => tried.push(format!("{} ({reason})", path.display())),
        }
    }
    let reason = format!("no usable library found; looked at {}", tried.join(", "));
    Err(InferenceError::Runtime { reason })
}

/// Where the library may be when nobody names it, in this order: beside the executable, where the
/// package puts it, in the source tree that the executable was built in, where the system's loader
/// finds it.
fn candidates() -> Vec<PathBuf> {
    let executable = env::current_exe().and_then(|path| path.canonicalize()).ok();
    let beside = executable.as_ref().and_then(|path| path.parent());
    let trees = executable.iter().flat_map(|path| path.ancestors().skip(1).take(TREE_DEPTH_MAX));
    // Set by cargo for what it runs; a daemon on a device does not have it.
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let trees = trees.map(Path::to_path_buf).chain(manifest_dir);
    let vendored = trees
        .filter(|tree| tree.join("Cargo.toml").is_file())
        .map(|tree| tree.join("vendor/onnxruntime").join(env::consts::ARCH).join(SYSTEM_NAMES[0]));
    let mut seen = BTreeSet::new();
    beside
        .map(|folder| folder.join(SYSTEM_NAMES[0]))
        .into_iter()
        .chain([PathBuf::from(PACKAGED)])
        .chain(vendored)
        .chain(SYSTEM_NAMES.map(PathBuf::from))
        .filter(|path| seen.insert(path.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde::Deserialize;

    use super::*;
    use crate::inference::entries::ModelEntry;
    use crate::inference::manifest::{Manifest, is_embedded};

    /// What Python's onnxruntime answered; see `models/golden/record.py`.
    const GOLDEN: &str = include_str!("../../models/golden/outputs.toml");

    #[derive(Deserialize)]
    struct Golden {
        scale: f32,
        offset: f32,
        output: Vec<GoldenOutput>,
    }

    #[derive(Deserialize)]
    struct GoldenOutput {
        name: String,
        shape: Vec<usize>,
        mean_magnitude: f32,
        at: Vec<usize>,
        values: Vec<f32>,
    }

    /// `None`, loudly, where ONNX Runtime is not set up.
    fn loader(test: &str) -> Option<OnnxLoader> {
        match OnnxLoader::new(None) {
            Ok(loader) => Some(loader),
            Err(error) => {
                eprintln!("SKIPPED {test}: {error}");
                None
            }
        }
    }

    fn ramp(shape: &[usize], golden: &Golden) -> Tensor {
        let count = shape.iter().product();
        let level = |i: usize| (i * 7919 % 256) as f32 / 255.0;
        let values = (0..count).map(|i| golden.offset + golden.scale * level(i)).collect();
        Tensor { shape: shape.to_vec(), values }
    }

    fn agrees(loader: &OnnxLoader, name: &str, entry: &ModelEntry, file: &ModelFile) {
        let goldens: std::collections::BTreeMap<String, Golden> = toml::from_str(GOLDEN).unwrap();
        let golden = &goldens[name];
        let mut model = loader.load(file, 1).unwrap();
        let outputs = model.run(&ramp(&entry.input.shape, golden)).unwrap();
        assert_eq!(outputs.0.len(), entry.outputs.len(), "{name}");
        // Integer kernels round and saturate differently from CPU to CPU; f32 kernels do not.
        let relative = if entry.file.contains("int8") { 0.1 } else { 1e-3 };
        for expected in &golden.output {
            let found = outputs.get(&expected.name).unwrap();
            assert_eq!(found.shape, expected.shape, "{name} {}", expected.name);
            assert_eq!(found.values.len(), found.shape.iter().product::<usize>());
            for (&at, &value) in expected.at.iter().zip(&expected.values) {
                let tolerance = relative * expected.mean_magnitude.max(value.abs()) + 1e-6;
                let difference = (found.values[at] - value).abs();
                let (what, found) = (&expected.name, found.values[at]);
                assert!(difference <= tolerance, "{name} {what}[{at}]: {found}, not {value}");
            }
        }
    }

    #[test]
    fn every_model_answers_what_pythons_runtime_answered() {
        let test = "every_model_answers_what_pythons_runtime_answered";
        let Some(loader) = loader(test) else { return };
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models");
        let manifest = Manifest::embedded();
        let mut ran = 0;
        for (pack, _) in manifest.packs() {
            for (name, entry) in manifest.models_of(pack).unwrap() {
                if !is_embedded(entry) && !shared.join(&entry.file).exists() {
                    eprintln!(
                        "SKIPPED {test} for {name}: no {}",
                        shared.join(&entry.file).display()
                    );
                    continue;
                }
                let file = manifest.file(pack, name, &shared).unwrap();
                agrees(&loader, name, entry, &file);
                ran += 1;
            }
        }
        assert!(ran >= 2, "the builtin models are always there");
    }

    #[test]
    fn networks_with_free_axes_follow_the_input() {
        let Some(loader) = loader("networks_with_free_axes_follow_the_input") else { return };
        let pack = Manifest::embedded().pack("builtin", None, Path::new("")).unwrap();
        let mut detector = loader.load(&pack.detector.file, 1).unwrap();
        for (height, width) in [(320, 320), (192, 640), (320, 320)] {
            let input = Tensor {
                shape: vec![1, 3, height, width],
                values: vec![100.0; 3 * height * width],
            };
            let outputs = detector.run(&input).unwrap();
            let cells = height / 8 * (width / 8);
            assert_eq!(outputs.get("kps_8").unwrap().shape, [1, cells, 10]);
        }
        let missing = detector.run(&Tensor { shape: vec![1, 3, 64, 64], values: vec![0.0; 12288] });
        let missing = missing.unwrap().get("scores").map(|_| ()).unwrap_err();
        assert!(matches!(missing, InferenceError::MissingOutput { .. }), "{missing}");
    }

    #[test]
    fn inputs_that_do_not_fit_are_errors() {
        let Some(loader) = loader("inputs_that_do_not_fit_are_errors") else { return };
        let pack = Manifest::embedded().pack("builtin", None, Path::new("")).unwrap();
        let mut embedding = loader.load(&pack.embedding.file, 1).unwrap();
        let cases: [(&[usize], usize); 5] = [
            (&[1, 3, 112, 112], 5),
            (&[1, 3, 111, 112], 3 * 111 * 112),
            (&[1, 1, 112, 112], 112 * 112),
            (&[3, 112, 112], 3 * 112 * 112),
            (&[0, 3, 112, 112], 0),
        ];
        for (shape, count) in cases {
            let input = Tensor { shape: shape.to_vec(), values: vec![0.5; count] };
            let error = embedding.run(&input).map(|_| ()).unwrap_err();
            let InferenceError::Run { model, reason } = error else { panic!("{error}") };
            assert_eq!(model, "builtin-embedding");
            assert!(!reason.is_empty());
        }
    }

    #[test]
    fn files_that_are_no_such_network_are_refused_by_name() {
        let Some(loader) = loader("files_that_are_no_such_network_are_refused_by_name") else {
            return;
        };
        let pack = Manifest::embedded().pack("builtin", None, Path::new("")).unwrap();
        let good = pack.embedding.file;
        let cut = Arc::from(&good.bytes[..good.bytes.len() / 2]);
        let cases = [
            ModelFile { bytes: Arc::from(&b"no protobuf at all"[..]), ..good.clone() },
            ModelFile { bytes: Arc::from(&b""[..]), ..good.clone() },
            ModelFile { bytes: cut, ..good.clone() },
            ModelFile { input: "pixels".into(), ..good.clone() },
        ];
        for file in cases {
            let error = loader.load(&file, 1).map(|_| ()).unwrap_err();
            assert!(matches!(&error, InferenceError::Load { .. }), "{error}");
            assert!(error.to_string().contains("builtin-embedding"), "{error}");
        }
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        let error = OnnxLoader::new(Some(&path)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("models.runtime"), "{error}");
        std::fs::write(&path, b"this is no library").unwrap();
        // Under the lock, because the runtime can be initialised only once per process.
        let _lock = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let absent = folder.path().join("absent.so");
        let error = load_first(&[absent.clone(), path.clone()]).map(|_| ()).unwrap_err();
        for place in [&absent, &path] {
            assert!(error.to_string().contains(place.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn the_runtime_is_loaded_once_and_asked_for_often() {
        let Some(first) = loader("the_runtime_is_loaded_once_and_asked_for_often") else { return };
        let second = OnnxLoader::new(None).unwrap();
        assert_eq!(first.library(), second.library());
        assert!(second.build_info().contains("ORT Build Info"), "{}", second.build_info());
        let library = first.library().to_path_buf();
        drop((first, second));
        // Dropping every loader must not end the environment: it cannot be made again.
        assert_eq!(OnnxLoader::new(None).unwrap().library(), library);
    }

    #[test]
    fn places_are_absolute_or_the_systems() {
        let places = candidates();
        assert!(places.contains(&PathBuf::from(PACKAGED)));
        for place in &places {
            let is_name = place.components().count() == 1;
            assert!(place.is_absolute() || is_name, "{} depends on the directory", place.display());
        }
        assert_eq!(places.last(), Some(&PathBuf::from(SYSTEM_NAMES[1])));
    }
}
