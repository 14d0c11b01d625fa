//! The sixteen compatibility tests of the HTTP contract, over anything that answers requests: the
//! service itself, or a running program behind a socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::cell::Cell;

use facelatch::picture;
use facelatch::web::base64_image;
use hyper::body::Bytes;
use hyper::{Request, Response};
use serde_json::{Value, json};

use crate::api_support::{Answer, request};

/// JPEG or PNG files to test with.
pub struct Pictures {
    /// One person.
    pub alice: Vec<u8>,
    /// Another picture of that person.
    pub alice_again: Vec<u8>,
    /// Somebody else.
    pub bob: Vec<u8>,
    /// A third person.
    pub carol: Vec<u8>,
    /// No face at all.
    pub nobody: Vec<u8>,
    /// Several people.
    pub group: Vec<u8>,
    /// How many.
    pub group_faces: usize,
}

/// Something that answers requests.
pub struct Api<'a> {
    /// Sends one request and waits for the answer.
    pub send: &'a dyn Fn(Request<Bytes>) -> Response<Bytes>,
    /// A key with the scope `admin`.
    pub key: String,
    /// Whether the model pack can test liveness.
    pub has_liveness: bool,
    /// What to send.
    pub pictures: Pictures,
    /// Makes names of collections unique within one run.
    pub used_names: Cell<u32>,
}

/// Name and body of each test.
pub type ContractTest = (&'static str, fn(&Api<'_>));

/// The tests, in the order of the contract.
pub const TESTS: [ContractTest; 16] = [
    ("every response is JSON with an object or array", every_response_is_json),
    ("a doubled leading slash changes nothing", doubled_slash),
    ("minimal and full bodies succeed, unknown fields are ignored", minimal_and_full_bodies),
    ("base64 of something else than a picture", not_a_picture),
    ("a picture without a face", without_a_face),
    ("no key is 401, a wrong key 403, both before the JSON", keys_come_first),
    ("create twice, bad names, missing collections", collections_have_rules),
    ("no match is an empty array, strangers give thumbnails", no_match),
    ("numbers and order of results", numbers_and_order),
    ("the alias min_score", alias_min_score),
    ("the spellings of base64", spellings_of_base64),
    ("liveness without a model is a licence error", liveness),
    ("duplicates", duplicates),
    ("without storage the picture is an empty string", without_storage),
    ("deleting a collection", deleting_a_collection),
    ("bulk with one bad image of three", bulk_with_one_bad_image),
];

impl Api<'_> {
    fn call(&self, what: &str, body: &Value) -> Answer {
        self.raw(what, Some(&self.key), body.to_string())
    }

    /// Every answer of every test is held to the first rule of the contract.
    fn raw(&self, what: &str, key: Option<&str>, body: impl Into<Bytes>) -> Answer {
        let answer = Answer::of((self.send)(request(what, key, body)));
        assert!(answer.json.is_object() || answer.json.is_array(), "{what}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/json", "{what}");
        if answer.status != 200 {
            assert!(answer.json["code"].is_string(), "{what}: {}", answer.json);
            assert!(answer.json["message"].is_string(), "{what}: {}", answer.json);
            let texts = answer.json["metadata"].as_object();
            let all_text = texts.is_none_or(|map| map.values().all(Value::is_string));
            assert!(all_text, "{what}: {}", answer.json);
        }
        answer
    }

    /// A new, empty collection.
    fn collection(&self) -> String {
        self.used_names.set(self.used_names.get() + 1);
        let name = format!("contract-{}-{}", std::process::id(), self.used_names.get());
        let created = self.call("POST /collection", &json!({"name": name})).ok();
        assert_eq!(created, json!({"name": name, "num_persons": 0}));
        name
    }

    fn enrolment(collection: &str, id: &str, picture: &[u8]) -> Value {
        json!({
            "person_id": id,
            "person_name": format!("Name of {id}"),
            "collection_name": collection,
            "face_base_64": base64_image::encode(picture),
            "face_storage_type": "NoStorage",
        })
    }

    fn enrol(&self, collection: &str, id: &str, picture: &[u8]) {
        self.call("PUT /person", &Self::enrolment(collection, id, picture)).ok();
    }

    /// Search results with these extra fields.
    fn search(&self, collection: &str, picture: &[u8], extra: &Value) -> Vec<Value> {
        let mut body = json!({
            "collection_name": collection, "face_base_64": base64_image::encode(picture),
        });
        merge(&mut body, extra);
        self.call("POST /face-search", &body).ok().as_array().unwrap().clone()
    }
}

fn merge(body: &mut Value, extra: &Value) {
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
}

fn every_response_is_json(api: &Api<'_>) {
    let paths = [
        "/collection",
        "/collections",
        "/person",
        "/persons",
        "/face-search",
        "/compare",
        "/multi-face-search",
        "/keys",
        "/health",
        "/ready",
        "/openapi.json",
        "/",
        "/nowhere",
        "/collection/x",
        "//",
        "/face-search/",
    ];
    let bodies =
        ["", "{}", "[]", "null", "{", "\"x\"", "{\"name\": 5}", "{\"collection_name\": {}}"];
    for path in paths {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            for (key, body) in bodies.iter().flat_map(|body| {
                [None, Some("wrong"), Some(api.key.as_str())].map(|key| (key, *body))
            }) {
                api.raw(&format!("{method} {path}"), key, body);
            }
        }
    }
}

fn doubled_slash(api: &Api<'_>) {
    let name = api.collection();
    api.enrol(&name, "alice", &api.pictures.alice);
    let body = json!({
        "collection_name": name,
        "face_base_64": base64_image::encode(&api.pictures.alice_again),
        "min_similarity_score": 0.0,
    });
    let plain = api.call("POST /face-search", &body).ok();
    assert_eq!(plain.as_array().unwrap().len(), 1);
    for path in ["POST //face-search", "POST ////face-search"] {
        assert_eq!(api.call(path, &body).ok(), plain, "{path}");
    }
}

fn minimal_and_full_bodies(api: &Api<'_>) {
    let name = api.collection();
    let picture = base64_image::encode(&api.pictures.alice);
    let more = json!({"unknown": {"nested": [1, null]}, "another": null});
    let mut person = Api::enrolment(&name, "alice", &api.pictures.alice);
    api.call("PUT /person", &person).ok();
    merge(&mut person, &more);
    merge(
        &mut person,
        &json!({
            "face_storage_type": "StoreThumbnails", "check_duplicates": false, "check_liveness": false,
            "duplicate_check_min_similarity": 0.7, "metadata": {"room": "7", "floor": 3},
        }),
    );
    let full = api.call("PUT /person", &person).ok();
    assert_eq!(full["metadata"], json!({"room": "7", "floor": "3"}));
    assert!(!full["face_base_64"].as_str().unwrap().is_empty());

    let mut bulk = json!({
        "collection_name": name, "face_storage_type": "StoreFullImage",
        "persons": [{"person_id": "alice", "person_name": "A", "face_base_64": picture}],
    });
    assert_eq!(api.call("PUT /persons", &bulk).ok(), json!([]));
    bulk["Persons"] = bulk.as_object_mut().unwrap().remove("persons").unwrap();
    bulk["Persons"][0]["metadata"] = json!({"a": "b"});
    merge(&mut bulk, &more);
    assert_eq!(api.call("PUT /persons", &bulk).ok(), json!([]));

    let minimal = json!({"collection_name": name, "face_base_64": picture});
    let mut full = minimal.clone();
    merge(&mut full, &more);
    merge(
        &mut full,
        &json!({
            "check_liveness": false, "min_similarity_score": 0.7, "max_results": 5,
        }),
    );
    let found = api.call("POST /face-search", &minimal).ok();
    assert_eq!(api.call("POST /face-search", &full).ok(), found);
    let keys: Vec<_> = found[0].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["face_base_64", "metadata", "person_id", "person_name", "similarity_score"];
    assert_eq!(keys, expected);
    // The posted file was stored, byte for byte.
    assert_eq!(found[0]["face_base_64"], picture);

    let compare = json!({"face_base_64": picture, "ref_face_base_64": picture});
    assert_eq!(api.call("POST /compare", &compare).ok()["is_match"], true);
    let mut full = compare;
    merge(&mut full, &more);
    merge(&mut full, &json!({"min_similarity_score": 0.5, "check_liveness": false}));
    assert_eq!(api.call("POST /compare", &full).ok()["is_match"], true);

    let many = json!({"collection_name": name, "multi_face_img_base_64": picture});
    api.call("POST /multi-face-search", &many).ok();
    let mut full = many;
    merge(&mut full, &more);
    merge(&mut full, &json!({"min_similarity_score": 0.7}));
    let all = api.call("POST /multi-face-search", &full).ok();
    assert_eq!(all["person_search_results"][0]["person_id"], "alice");
    assert_eq!(all["unrecognized_face_thumbnails_base_64"], json!([]));
}

fn not_a_picture(api: &Api<'_>) {
    let name = api.collection();
    let bad = "U2Vjb25kIGltYWdl";
    let mut person = Api::enrolment(&name, "x", &[]);
    person["face_base_64"] = json!(bad);
    let good = base64_image::encode(&api.pictures.alice);
    let requests = [
        ("POST /face-search", json!({"collection_name": name, "face_base_64": bad})),
        (
            "POST /multi-face-search",
            json!({"collection_name": name, "multi_face_img_base_64": bad}),
        ),
        ("PUT /person", person),
        ("POST /compare", json!({"face_base_64": bad, "ref_face_base_64": good})),
        ("POST /compare", json!({"face_base_64": good, "ref_face_base_64": bad})),
    ];
    for (what, body) in requests {
        let answer = api.call(what, &body);
        assert_eq!(answer.status, 422, "{what}");
        assert_eq!(answer.code(), "ERR_BASE64_IMAGE_CANNOT_BE_DECODED", "{what}");
    }
}

fn without_a_face(api: &Api<'_>) {
    let name = api.collection();
    let nobody = base64_image::encode(&api.pictures.nobody);
    let alice = base64_image::encode(&api.pictures.alice);
    for check_liveness in [false, true] {
        let mut person = Api::enrolment(&name, "x", &api.pictures.nobody);
        person["check_liveness"] = json!(check_liveness);
        let search = json!({
            "collection_name": name, "face_base_64": nobody, "check_liveness": check_liveness,
        });
        let compare = json!({
            "face_base_64": nobody, "ref_face_base_64": alice, "check_liveness": check_liveness,
        });
        let requests =
            [("PUT /person", person), ("POST /face-search", search), ("POST /compare", compare)];
        for (what, body) in requests {
            let answer = api.call(what, &body);
            assert_eq!(answer.status, 400, "{what}");
            assert_eq!(answer.code(), "ERR_FACE_NOT_DETECTED", "{what}");
        }
    }
    let many = json!({"collection_name": name, "multi_face_img_base_64": nobody});
    assert_eq!(api.call("POST /multi-face-search", &many).code(), "ERR_FACE_NOT_DETECTED");
}

fn keys_come_first(api: &Api<'_>) {
    let endpoints = [
        "POST /collection",
        "DELETE /collection",
        "PUT /person",
        "PUT /persons",
        "POST /face-search",
        "POST /multi-face-search",
        "POST /compare",
    ];
    for what in endpoints {
        for body in ["", "{", "{}", "not json"] {
            let absent = api.raw(what, None, body);
            assert_eq!((absent.status, absent.code()), (401, "ERR_API_KEY_NOT_PRESENT"), "{what}");
            let wrong = api.raw(what, Some("wrong"), body);
            assert_eq!((wrong.status, wrong.code()), (403, "ERR_API_KEY_NOT_VALID"), "{what}");
            let right = api.raw(what, Some(&api.key), body);
            assert_eq!((right.status, right.code()), (422, "ERR_UNPROCESSABLE_CONTENT"), "{what}");
        }
    }
}

fn collections_have_rules(api: &Api<'_>) {
    let name = api.collection();
    let twice = api.call("POST /collection", &json!({"name": name}));
    assert_eq!((twice.status, twice.code()), (409, "ERR_ALREADY_EXISTS"));
    let spaced = api.call("POST /collection", &json!({"name": "a b"}));
    assert_eq!((spaced.status, spaced.code()), (400, "ERR_INVALID_COLLECTION_NAME"));
    for missing in ["contract-missing", "a b"] {
        let picture = base64_image::encode(&api.pictures.alice);
        let one = json!({"collection_name": missing, "face_base_64": picture});
        let many = json!({"collection_name": missing, "multi_face_img_base_64": picture});
        for (what, body) in [("POST /face-search", one), ("POST /multi-face-search", many)] {
            let answer = api.call(what, &body);
            assert_eq!((answer.status, answer.code()), (404, "ERR_NOT_FOUND"), "{what} {missing}");
        }
    }
}

fn no_match(api: &Api<'_>) {
    let name = api.collection();
    assert_eq!(api.search(&name, &api.pictures.bob, &json!({})), Vec::<Value>::new());
    let group = base64_image::encode(&api.pictures.group);
    let many = json!({"collection_name": name, "multi_face_img_base_64": group});
    let answer = api.call("POST /multi-face-search", &many).ok();
    assert_eq!(answer["person_search_results"], json!([]));
    let thumbnails = answer["unrecognized_face_thumbnails_base_64"].as_array().unwrap();
    assert_eq!(thumbnails.len(), api.pictures.group_faces);
    for thumbnail in thumbnails {
        let file = base64_image::decode(thumbnail.as_str().unwrap()).unwrap();
        assert_eq!(file[..3], [0xff, 0xd8, 0xff], "a JPEG file");
        picture::decode(&file).unwrap();
    }
    assert_eq!(answer["faces"].as_array().unwrap().len(), api.pictures.group_faces);
}

fn numbers_and_order(api: &Api<'_>) {
    let name = api.collection();
    for number in 0..4 {
        api.enrol(&name, &format!("alice{number}"), &api.pictures.alice);
        api.enrol(&name, &format!("bob{number}"), &api.pictures.bob);
        api.enrol(&name, &format!("carol{number}"), &api.pictures.carol);
    }
    let picture = &api.pictures.alice_again;
    assert_eq!(api.search(&name, picture, &json!({"min_similarity_score": 0.0})).len(), 1);
    let all = json!({"min_similarity_score": 0.0, "max_results": 10});
    let ten = api.search(&name, picture, &all);
    assert_eq!(ten.len(), 10);
    let scores: Vec<f64> =
        ten.iter().map(|result| result["similarity_score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    let ids: Vec<_> = ten.iter().take(4).map(|result| result["person_id"].clone()).collect();
    assert_eq!(ids, ["alice0", "alice1", "alice2", "alice3"], "equal scores are sorted by id");
    // The threshold is inclusive: a score that we returned still matches.
    for threshold in [scores[0], scores[3], scores[9]] {
        let extra = json!({"min_similarity_score": threshold, "max_results": 12});
        let results = api.search(&name, picture, &extra);
        let expected = scores.iter().filter(|score| **score >= threshold).count();
        assert!(results.len() >= expected, "{threshold}: {results:?}");
        assert!(results.iter().all(|r| r["similarity_score"].as_f64().unwrap() >= threshold));
    }
}

fn alias_min_score(api: &Api<'_>) {
    let name = api.collection();
    api.enrol(&name, "bob", &api.pictures.bob);
    let found = |extra| api.search(&name, &api.pictures.alice, &extra).len();
    assert_eq!(found(json!({"min_similarity_score": 0.0})), 1);
    assert_eq!(found(json!({"min_score": 0.0})), 1);
    assert_eq!(found(json!({"min_score": 0.95})), 0);
    assert_eq!(found(json!({"min_score": 0.95, "min_similarity_score": 0.0})), 1);
    assert_eq!(found(json!({"min_score": 0.0, "min_similarity_score": 0.95})), 0);
}

fn spellings_of_base64(api: &Api<'_>) {
    let name = api.collection();
    api.enrol(&name, "alice", &api.pictures.alice);
    let plain = base64_image::encode(&api.pictures.alice);
    let lines: Vec<&str> =
        plain.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let spellings = [
        format!("data:image/jpeg;base64,{plain}"),
        lines.join("\r\n"),
        format!("  {plain}\n"),
        plain.trim_end_matches('=').to_string(),
        plain.replace('+', "-").replace('/', "_"),
    ];
    for spelling in spellings {
        let body = json!({"collection_name": name, "face_base_64": spelling});
        let found = api.call("POST /face-search", &body).ok();
        assert_eq!(found[0]["person_id"], "alice", "{}", &spelling[..30]);
    }
}

fn liveness(api: &Api<'_>) {
    let name = api.collection();
    let alice = base64_image::encode(&api.pictures.alice);
    let mut person = Api::enrolment(&name, "alice", &api.pictures.alice);
    person["check_liveness"] = json!(true);
    let search = json!({"collection_name": name, "face_base_64": alice, "check_liveness": true});
    let compare = json!({"face_base_64": alice, "ref_face_base_64": alice, "check_liveness": true});
    for (what, body) in
        [("PUT /person", person), ("POST /face-search", search), ("POST /compare", compare)]
    {
        let answer = api.call(what, &body);
        // A pack that can test liveness may let this picture pass, or name any reason but that one.
        if api.has_liveness && answer.status == 200 {
            continue;
        }
        assert_eq!((answer.status, answer.code()), (422, "ERR_LIVENESS_ERROR"), "{what}");
        let reason = &answer.json["metadata"]["code"];
        assert_eq!(reason == "LICENSE_ERROR", !api.has_liveness, "{what}: {reason}");
    }
    if api.has_liveness {
        return;
    }
    let anybody = json!({"min_similarity_score": 0.0});
    assert!(api.search(&name, &api.pictures.alice, &anybody).is_empty(), "nothing was stored");
}

fn duplicates(api: &Api<'_>) {
    let name = api.collection();
    let mut person = Api::enrolment(&name, "alice", &api.pictures.alice);
    person["check_duplicates"] = json!(true);
    api.call("PUT /person", &person).ok();
    api.call("PUT /person", &person).ok();
    person["person_id"] = json!("somebody-else");
    let answer = api.call("PUT /person", &person);
    assert_eq!((answer.status, answer.code()), (409, "ERR_ALREADY_EXISTS"));
    assert_eq!(answer.json["metadata"]["person_id"], "alice");
    let score: f64 = answer.json["metadata"]["similarity_score"].as_str().unwrap().parse().unwrap();
    assert!((0.7..=1.0).contains(&score), "{score}");
    person["check_duplicates"] = json!(false);
    api.call("PUT /person", &person).ok();
}

fn without_storage(api: &Api<'_>) {
    let name = api.collection();
    api.enrol(&name, "alice", &api.pictures.alice);
    let found = api.search(&name, &api.pictures.alice, &json!({}));
    assert_eq!(found[0]["person_id"], "alice");
    assert_eq!(found[0]["face_base_64"], "");
    assert_eq!(found[0]["metadata"], json!({}));
}

fn deleting_a_collection(api: &Api<'_>) {
    let name = api.collection();
    api.enrol(&name, "alice", &api.pictures.alice);
    let deleted = api.call("DELETE /collection", &json!({"name": name})).ok();
    assert_eq!(deleted, json!({"name": name, "num_persons": 1}));
    let body = json!({
        "collection_name": name, "face_base_64": base64_image::encode(&api.pictures.alice),
    });
    let answer = api.call("POST /face-search", &body);
    assert_eq!((answer.status, answer.code()), (404, "ERR_NOT_FOUND"));
    let again = api.call("POST /collection", &json!({"name": name})).ok();
    assert_eq!(again, json!({"name": name, "num_persons": 0}));
    assert!(api.search(&name, &api.pictures.alice, &json!({})).is_empty());
}

fn bulk_with_one_bad_image(api: &Api<'_>) {
    let name = api.collection();
    let item = |id: &str, picture: &[u8]| {
        json!({
            "person_id": id, "person_name": id, "face_base_64": base64_image::encode(picture),
        })
    };
    let body = json!({
        "collection_name": name,
        "face_storage_type": "NoStorage",
        "persons": [
            item("alice", &api.pictures.alice),
            item("bad", b"not a picture"),
            item("bob", &api.pictures.bob),
        ],
    });
    let failed = api.call("PUT /persons", &body).ok();
    assert_eq!(failed.as_array().unwrap().len(), 1);
    assert_eq!(failed[0]["code"], "ERR_BASE64_IMAGE_CANNOT_BE_DECODED");
    assert!(failed[0]["message"].is_string());
    assert_eq!(failed[0]["metadata"]["person_id"], "bad");
    assert_eq!(failed[0]["metadata"]["index"], "1");
    for (id, picture) in [("alice", &api.pictures.alice), ("bob", &api.pictures.bob)] {
        assert_eq!(api.search(&name, picture, &json!({}))[0]["person_id"], id);
    }
}
