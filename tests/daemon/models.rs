//! Models that are damaged, missing, or have no runtime.

use std::fs;
use std::path::Path;

use facelatch::web::base64_image;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::contract::standard_pack;
use crate::support::client::enrolment;
use crate::support::{Home, Setting, nobody};

/// A copy of an installed pack that a test may damage.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// SHA-256 as the manifest writes it.
fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Models are checked at every load (P12): the message names the file, both hashes and the remedy.
#[test]
fn a_changed_model_file_refuses_to_start() {
    let test = "a_changed_model_file_refuses_to_start";
    let Some(installed) = standard_pack(test) else { return };
    let home = Home::with(Setting { pack: "standard", ..Setting::default() });
    copy(&installed, &home.path("models"));
    let path = home.path("models/standard/yunet_n_dynamic.onnx");
    let mut bytes = fs::read(&path).unwrap();
    let expected = hex(&bytes);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refusal = home.run(&["run"]);
    assert_ne!(refusal.code, Some(0), "{refusal:?}");
    refusal.says(&["yunet_n_dynamic.onnx", &expected, &hex(&bytes), "models install"]);
    home.run(&["models", "verify"]).with(1);
    let list = home.run(&["models", "list", "--json"]).with(0).stdout;
    assert!(list.contains("wrong"), "{list}");

    // Half of a pack is not silently replaced by the embedded one.
    fs::remove_file(&path).unwrap();
    let daemon = home.start();
    let ready = daemon.client.get("/ready");
    assert_eq!(ready.status, 500, "{}", ready.json);
    assert!(ready.json.to_string().contains("yunet_n_dynamic.onnx"), "{}", ready.json);
}

/// The same where no real models are at hand: files with the right names and something else in them.
#[test]
fn files_that_are_no_models_refuse_to_start_and_half_a_pack_is_not_replaced() {
    let home = Home::new();
    let listed = home.run(&["models", "list", "--json"]).json();
    let packs = listed["packs"].as_array().unwrap();
    let standard = packs.iter().find(|pack| pack["name"] == "standard").unwrap();
    let files = standard["files"].as_array().unwrap().iter();
    let outside: Vec<_> = files
        .filter(|file| file["file"].as_str().unwrap().starts_with("standard/"))
        .map(|file| (home.path("models").join(file["file"].as_str().unwrap()), file))
        .collect();
    assert!(outside.len() > 3, "{standard:#}");
    fs::create_dir_all(home.path("models/standard")).unwrap();
    for (path, _) in &outside {
        fs::write(path, b"no model").unwrap();
    }
    home.configure(&Setting { pack: "standard", ..Setting::default() });
    let refusal = home.run(&["run"]);
    assert_ne!(refusal.code, Some(0), "{refusal:?}");
    refusal.says(&[&hex(b"no model"), "models install"]);
    let verified = home.run(&["models", "verify"]).with(1);
    for (_, file) in &outside {
        let name = file["file"].as_str().unwrap();
        assert!(format!("{verified:?}").contains(name), "{name}: {verified:?}");
    }
    let (gone, _) = &outside[0];
    fs::remove_file(gone).unwrap();
    let daemon = home.start();
    let ready = daemon.client.get("/ready");
    assert_eq!(ready.status, 500, "{}", ready.json);
    let name = gone.file_name().unwrap().to_str().unwrap();
    assert!(ready.json.to_string().contains(name), "{}", ready.json);
}

#[test]
fn without_a_runtime_everything_but_faces_works() {
    let runtime = Some("/nonexistent/libonnxruntime.so".to_string());
    let home = Home::with(Setting { runtime, ..Setting::default() });
    let daemon = home.start();
    let client = &daemon.client;
    client.get("/health").ok();
    client.create("staff");
    assert_eq!(client.get("/collections").ok(), json!([{"name": "staff", "num_persons": 0}]));
    let picture = base64_image::encode(&nobody());
    let search = json!({"collection_name": "staff", "face_base_64": picture});
    let compare = json!({"face_base_64": picture, "ref_face_base_64": picture});
    let enrol = enrolment("staff", "x", &nobody(), "NoStorage");
    for (what, body) in [
        ("POST /face-search", &search),
        ("POST /compare", &compare),
        ("PUT /person", &enrol),
        ("GET /ready", &json!({})),
    ] {
        let answer = client.call(what, body);
        assert_eq!((answer.status, answer.code()), (500, "ERR_INTERNAL_ERROR"), "{what}");
        let metadata = answer.json["metadata"].to_string();
        assert!(metadata.contains("models.runtime"), "{what}: {metadata}");
    }
    // The order of checks stays.
    let missing = json!({"collection_name": "missing", "face_base_64": picture});
    assert_eq!(client.call("POST /face-search", &missing).status, 404);
    client.call("DELETE /collection", &json!({"name": "staff"})).ok();
    daemon.stop();
}
