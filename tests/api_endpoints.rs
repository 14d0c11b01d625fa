//! Every endpoint of the HTTP service in tables: answers, errors, order of checks, scopes,
//! overload, broken parts, and bytes that mean nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` makes values")]

mod api_support;

use std::collections::BTreeSet;
use std::sync::mpsc;

use api_support::{Answer, Bench, LAN, WAN, enrolment, face, jpeg, picture_base64, request};
use facelatch::config::MetricsAccess;
use facelatch::face::comparison::ScoreMap;
use facelatch::face::liveness::LivenessReason;
use facelatch::gallery::names::{CollectionName, PersonId};
use facelatch::inference::Pack;
use facelatch::picture;
use facelatch::recognition::pool::Lane;
use facelatch::recognition::scripted::{self, Face, Kind, ScriptedLoader};
use facelatch::store::Scope;
use facelatch::web::base64_image;
use facelatch::web::error::ErrorCode;
use facelatch::web::lockout::BAD_KEYS_MAX;
use facelatch::web::oracle::NEAR_MISSES_MAX;
use facelatch::web::path::{Access, Path, ROUTES};
use facelatch::web::server::{BadRequest, Caller, Handler, TimedOut};
use facelatch::web::stored_images::IMAGE_BYTES_PER_ANSWER_MAX;
use hyper::body::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

/// `base` with these fields replaced.
fn with(base: &Value, changes: Value) -> Value {
    let mut body = base.clone();
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.json);
}

#[test]
fn collections_are_created_read_listed_and_deleted() {
    let bench = Bench::new();
    let staff = json!({"name": "staff"});
    assert_eq!(bench.call("GET /collections", &json!({})).ok(), json!([]));
    bench.collection("staff", &[1, 2]);
    bench.collection("Staff", &[]);
    let list = json!([{"name": "Staff", "num_persons": 0}, {"name": "staff", "num_persons": 2}]);
    assert_eq!(bench.call("GET /collections", &json!({})).ok(), list);
    assert_eq!(bench.call("GET /collection?name=staff", &json!({})).ok(), list[1]);
    refused(&bench.call("POST /collection", &staff), 409, "ERR_ALREADY_EXISTS");
    assert_eq!(bench.call("DELETE /collection", &staff).ok(), list[1]);
    refused(&bench.call("DELETE /collection", &staff), 404, "ERR_NOT_FOUND");
    let by_query =
        bench.send(request("DELETE /collection?name=Staff", Some(&bench.admin), ""), LAN);
    assert_eq!(by_query.ok(), list[0]);
    assert_eq!(bench.call("GET /collections", &json!({})).ok(), json!([]));
}

#[test]
fn names_of_collections_that_cannot_be() {
    let bench = Bench::new();
    let long = "x".repeat(256);
    for name in ["", "a b", "é", "a/b", "../etc", long.as_str()] {
        let body = json!({"name": name});
        for what in ["POST /collection", "DELETE /collection"] {
            refused(&bench.call(what, &body), 400, "ERR_INVALID_COLLECTION_NAME");
        }
        let person = with(&enrolment("c", 1), json!({"collection_name": name}));
        refused(&bench.call("PUT /person", &person), 400, "ERR_INVALID_COLLECTION_NAME");
        let bulk =
            json!({"collection_name": name, "face_storage_type": "NoStorage", "persons": []});
        refused(&bench.call("PUT /persons", &bulk), 400, "ERR_INVALID_COLLECTION_NAME");
        let search = json!({"collection_name": name, "face_base_64": face(1)});
        refused(&bench.call("POST /face-search", &search), 404, "ERR_NOT_FOUND");
    }
    bench.call("POST /collection", &json!({"name": "x".repeat(255)})).ok();
}

#[test]
fn a_person_is_enrolled_read_updated_and_deleted() {
    let bench = Bench::new();
    bench.collection("staff", &[]);
    let body = with(&enrolment("staff", 1), json!({"metadata": {"room": 7}}));
    let expected = json!({
        "person_id": "p1", "person_name": "Person 1", "metadata": {"room": "7"},
        "face_base_64": "", "collection_name": "staff",
    });
    assert_eq!(bench.call("PUT /person", &body).ok(), expected);
    let read = "GET /person?collection_name=staff&person_id=p1";
    assert_eq!(bench.call(read, &json!({})).ok(), expected);

    let file = face(9);
    let update = json!({
        "person_name": "New", "face_base_64": file, "face_storage_type": "StoreFullImage",
        "metadata": null,
    });
    let updated = bench.call("PUT /person", &with(&body, update)).ok();
    assert_eq!(updated["face_base_64"], file);
    assert_eq!(updated["metadata"], json!({}));
    assert_eq!(bench.call(read, &json!({})).ok(), updated);
    let search = |person: u8| {
        let body = json!({"collection_name": "staff", "face_base_64": face(person)});
        bench.call("POST /face-search", &body).ok().as_array().unwrap().len()
    };
    assert_eq!((search(1), search(9)), (0, 1), "the face was replaced");

    let id = json!({"collection_name": "staff", "person_id": "p1"});
    assert_eq!(bench.call("DELETE /person", &id).ok()["person_name"], "New");
    refused(&bench.call("DELETE /person", &id), 404, "ERR_NOT_FOUND");
    refused(&bench.call(read, &json!({})), 404, "ERR_NOT_FOUND");
    bench.call("PUT /person", &body).ok();
    let by_query = "DELETE /person?collection_name=staff&person_id=p1";
    bench.send(request(by_query, Some(&bench.admin), ""), LAN).ok();
    assert_eq!(search(1), 0);
}

#[test]
fn what_picture_is_kept() {
    let bench = Bench::new();
    bench.collection("staff", &[]);
    let posted = face(1);
    for storage in ["NoStorage", "StoreThumbnails", "StoreFullImage"] {
        let body = with(&enrolment("staff", 1), json!({"face_storage_type": storage}));
        let put = bench.call("PUT /person", &body).ok();
        let kept = put["face_base_64"].as_str().unwrap();
        let search = json!({"collection_name": "staff", "face_base_64": posted});
        let found = bench.call("POST /face-search", &search).ok();
        assert_eq!(found[0]["face_base_64"], kept, "{storage}");
        match storage {
            "NoStorage" => assert_eq!(kept, ""),
            "StoreFullImage" => assert_eq!(kept, posted),
            _ => {
                let crop = picture::decode(&base64_image::decode(kept).unwrap()).unwrap();
                assert!(crop.width() < 480 && crop.width() > 200, "{crop:?}");
                // What was stored can be searched with.
                let again = json!({"collection_name": "staff", "face_base_64": kept});
                let found = bench.call("POST /face-search", &again).ok();
                assert_eq!(found[0]["person_id"], "p1");
            }
        }
    }
}

#[test]
fn pictures_beyond_the_limit_of_one_answer_are_left_out() {
    let bench = Bench::new();
    bench.collection("staff", &[]);
    // A file whose tail is nothing but weight: decoders stop at the end of the picture.
    let mut file = jpeg(&[Face::live(1)]);
    file.resize(IMAGE_BYTES_PER_ANSWER_MAX / 2 - 1, 0);
    let heavy = base64_image::encode(&file);
    for id in ["a", "b", "c"] {
        let changes = json!({
            "person_id": id, "face_base_64": heavy, "face_storage_type": "StoreFullImage",
        });
        bench.call("PUT /person", &with(&enrolment("staff", 1), changes)).ok();
    }
    let body = json!({"collection_name": "staff", "face_base_64": face(1), "max_results": 3});
    let found = bench.call("POST /face-search", &body).ok();
    let lengths: Vec<usize> =
        (0..3).map(|at| found[at]["face_base_64"].as_str().unwrap().len()).collect();
    assert_eq!(lengths, [heavy.len(), heavy.len(), 0]);
}

#[test]
fn further_reference_faces_are_appended() {
    let bench = Bench::new();
    bench.collection("staff", &[1]);
    let add = |person: u8| {
        let body =
            with(&enrolment("staff", 1), json!({"face_base_64": face(person), "add_face": true}));
        bench.call("PUT /person", &body)
    };
    for person in 2..=16 {
        add(person).ok();
    }
    for person in [1, 2, 16] {
        let body = json!({"collection_name": "staff", "face_base_64": face(person)});
        assert_eq!(bench.call("POST /face-search", &body).ok()[0]["person_id"], "p1");
    }
    let full = add(17);
    refused(&full, 422, "ERR_UNPROCESSABLE_CONTENT");
    let message = full.json["message"].as_str().unwrap();
    assert!(message.starts_with("Invalid request: add_face: "), "{message}");
}

#[test]
fn people_are_listed_by_page_and_text() {
    let bench = Bench::new();
    bench.collection("staff", &(1..=25).collect::<Vec<u8>>());
    let list = |query: &str| {
        let what = format!("GET /persons?collection_name=staff{query}");
        bench.send(request(&what, Some(&bench.admin), ""), LAN)
    };
    let first = list("").ok();
    assert_eq!(first["count"], 25);
    assert_eq!(first["persons"].as_array().unwrap().len(), 20);
    assert!(first["persons"][0].get("face_base_64").is_none(), "no pictures unless asked for");
    assert_eq!(list("&skip=24").ok()["persons"].as_array().unwrap().len(), 1);
    assert_eq!(list("&skip=1000").ok()["persons"], json!([]));
    assert_eq!(list("&take=0").ok()["persons"], json!([]));
    let found = list("&search=PERSON%2012&images=true").ok();
    assert_eq!(found["count"], 1);
    assert_eq!(found["persons"][0]["person_id"], "p12");
    assert_eq!(found["persons"][0]["face_base_64"], "");
    for bad in ["&take=1001", "&take=-1", "&skip=x", "&images=7", "&search=%ff"] {
        refused(&list(bad), 422, "ERR_UNPROCESSABLE_CONTENT");
    }
    let what = "GET /persons?collection_name=none";
    refused(&bench.call(what, &json!({})), 404, "ERR_NOT_FOUND");
    refused(&bench.call("GET /persons", &json!({})), 422, "ERR_UNPROCESSABLE_CONTENT");
    refused(&bench.call("GET /collection", &json!({})), 422, "ERR_UNPROCESSABLE_CONTENT");
    refused(
        &bench.call("GET /person?collection_name=staff&person_id=", &json!({})),
        422,
        "ERR_UNPROCESSABLE_CONTENT",
    );
}

#[test]
fn the_checks_of_an_enrolment_come_in_order() {
    let bench = Bench::new();
    bench.collection("staff", &[9]);
    let two = picture_base64(&[Face::live(1).at(10, 10, 200), Face::live(2).at(250, 300, 200)]);
    // Each row repairs what the row before was refused for, so every check is seen to come after
    // the one above it.
    let mut body = json!({
        "person_id": "new", "person_name": "New", "collection_name": "a b",
        "face_base_64": "U2Vjb25kIGltYWdl", "face_storage_type": "Cloud",
        "check_liveness": true, "check_duplicates": true,
    });
    let rows: [(&str, Value, u16, &str); 7] = [
        ("face_storage_type", json!("NoStorage"), 422, "ERR_UNPROCESSABLE_CONTENT"),
        ("collection_name", json!("other"), 400, "ERR_INVALID_COLLECTION_NAME"),
        ("collection_name", json!("staff"), 404, "ERR_NOT_FOUND"),
        ("face_base_64", json!(picture_base64(&[])), 422, "ERR_BASE64_IMAGE_CANNOT_BE_DECODED"),
        ("face_base_64", json!(two), 400, "ERR_FACE_NOT_DETECTED"),
        (
            "face_base_64",
            json!(picture_base64(&[Face::attack(9)])),
            400,
            "ERR_MULTIPLE_FACES_DETECTED",
        ),
        ("face_base_64", json!(face(9)), 422, "ERR_LIVENESS_ERROR"),
    ];
    for (field, repaired, status, code) in rows {
        refused(&bench.call("PUT /person", &body), status, code);
        body[field] = repaired;
    }
    let duplicate = bench.call("PUT /person", &body);
    refused(&duplicate, 409, "ERR_ALREADY_EXISTS");
    assert_eq!(duplicate.json["metadata"], json!({"person_id": "p9", "similarity_score": "1"}));
    body["face_base_64"] = json!(face(10));
    bench.call("PUT /person", &body).ok();
    let staff = bench.call("GET /collection?name=staff", &json!({})).ok();
    assert_eq!(staff["num_persons"], 2, "nothing but the last request was stored");
}

#[test]
fn liveness_reasons_reach_the_caller() {
    let bench = Bench::new();
    bench.collection("staff", &[1]);
    let live = Face::live(1);
    let turned = Face { kind: scripted::Kind::Turned, ..live };
    let rows = [
        (vec![live, Face::live(2).at(10, 400, 120)], "TOO_MANY_FACES"),
        (vec![live.at(-60, 200, 200)], "FACE_CROPPED"),
        (vec![live.at(5, 200, 200)], "FACE_CLOSE_TO_BORDER"),
        (vec![live.at(150, 200, 100)], "FACE_TOO_SMALL"),
        (vec![turned], "FACE_ANGLE_TOO_LARGE"),
        (vec![Face { kind: scripted::Kind::Asleep, ..live }], "EYES_CLOSED"),
        (vec![Face { kind: scripted::Kind::Masked, ..live }], "FACE_IS_OCCLUDED"),
        (vec![Face::attack(1)], "FACE_NOT_LIVE"),
    ];
    for (faces, reason) in rows {
        let picture = picture_base64(&faces);
        let search = json!({
            "collection_name": "staff", "face_base_64": picture, "check_liveness": true,
        });
        let compare = json!({
            "face_base_64": picture, "ref_face_base_64": face(1), "check_liveness": true,
        });
        for (what, body) in [("POST /face-search", &search), ("POST /compare", &compare)] {
            let answer = bench.call(what, body);
            refused(&answer, 422, "ERR_LIVENESS_ERROR");
            assert_eq!(answer.json["metadata"]["code"], reason, "{what}");
            bench.call(what, &with(body, json!({"check_liveness": false}))).ok();
        }
    }
    let search = json!({
        "collection_name": "staff", "face_base_64": picture_base64(&[]), "check_liveness": true,
    });
    refused(&bench.call("POST /face-search", &search), 400, "ERR_FACE_NOT_DETECTED");
    // Liveness is the first picture's business.
    let reference = json!({
        "face_base_64": face(1), "ref_face_base_64": picture_base64(&[Face::attack(1)]),
        "check_liveness": true,
    });
    assert_eq!(bench.call("POST /compare", &reference).ok()["is_match"], true);
    let search = json!({
        "collection_name": "staff", "face_base_64": face(1), "check_liveness": true,
    });
    assert_eq!(bench.call("POST /face-search", &search).ok()[0]["person_id"], "p1");
}

/// A service with a face mesh, and how its four ways of knowing a person answer to a picture of
/// person 240, who has narrow eyes and is enrolled as `p240`.
fn answers_to_known_eyes(pack: &Pack, picture: &str) -> [Answer; 4] {
    let bench = Bench::with_pack(pack);
    bench.collection("staff", &[240]);
    let live = json!({"face_base_64": picture, "check_liveness": true});
    let search = with(&live, json!({"collection_name": "staff"}));
    let lenient = with(&search, json!({"min_similarity_score": 0.0}));
    let compare = with(&live, json!({"ref_face_base_64": face(240)}));
    let update = with(&enrolment("staff", 240), live);
    [
        bench.call("POST /face-search", &search),
        bench.call("POST /face-search", &lenient),
        bench.call("POST /compare", &compare),
        bench.call("PUT /person", &update),
    ]
}

#[test]
fn narrow_eyes_are_judged_by_their_own_measure_where_the_person_is_known() {
    let pack = scripted::pack_with_mesh();
    let of = |kind, person| picture_base64(&[Face { kind, ..Face::live(person) }]);
    let [search, lenient, compare, update] =
        answers_to_known_eyes(&pack, &of(Kind::Squinting, 240));
    assert_eq!(search.ok()[0]["person_id"], "p240");
    assert_eq!(lenient.ok()[0]["person_id"], "p240");
    assert_eq!(compare.ok()["is_match"], true);
    update.ok();
    for answer in answers_to_known_eyes(&pack, &of(Kind::Asleep, 240)) {
        refused(&answer, 422, "ERR_LIVENESS_ERROR");
        assert_eq!(answer.json["metadata"]["code"], "EYES_CLOSED");
    }
    // A stranger, whom neither a search for anybody at all nor the id of somebody makes known.
    let answers = answers_to_known_eyes(&pack, &of(Kind::Squinting, 9));
    for answer in &answers {
        refused(answer, 422, "ERR_LIVENESS_ERROR");
        assert_eq!(answer.json["metadata"]["code"], "EYES_CLOSED");
    }
}

#[test]
fn a_failed_liveness_check_does_not_tell_whether_the_person_is_known() {
    let strict = Pack { pad_score_min: 0.999, ..scripted::pack_with_mesh() };
    let picture = |person| picture_base64(&[Face { kind: Kind::Squinting, ..Face::live(person) }]);
    let stranger = answers_to_known_eyes(&strict, &picture(9));
    for (known, stranger) in answers_to_known_eyes(&strict, &picture(240)).iter().zip(stranger) {
        refused(known, 422, "ERR_LIVENESS_ERROR");
        assert_eq!(known.json["metadata"], json!({"code": "EYES_CLOSED"}));
        assert_eq!(known.json["metadata"], stranger.json["metadata"]);
    }
}

#[test]
fn how_open_the_eyes_of_people_are_is_kept_and_told_to_nobody() {
    let bench = Bench::with_pack(&scripted::pack_with_mesh());
    bench.collection("staff", &[240]);
    let shut = picture_base64(&[Face { kind: Kind::Asleep, ..Face::live(2) }]);
    let items = [
        json!({"person_id": "bulk", "person_name": "B", "face_base_64": face(1)}),
        json!({"person_id": "shut", "person_name": "S", "face_base_64": shut}),
    ];
    let bulk =
        json!({"collection_name": "staff", "face_storage_type": "NoStorage", "persons": items});
    assert_eq!(bench.call("PUT /persons", &bulk).ok(), json!([]));
    let staff = CollectionName::new("staff").unwrap();
    let kept = |id: &str| {
        let member = bench.roster.person(&staff, &PersonId::new(id).unwrap()).unwrap();
        member.eye_ratio.map(|ratio| (ratio.value() * 100.0).round() as u32)
    };
    assert_eq!([kept("p240"), kept("bulk"), kept("shut")], [Some(17), Some(30), None]);
    // To as many digits as anybody would print of it.
    let p240 = || bench.roster.person(&staff, &PersonId::new("p240").unwrap()).unwrap();
    let number: String = p240().eye_ratio.unwrap().value().to_string().chars().take(5).collect();
    assert!(number.len() >= 4, "{number}");
    let squinting = picture_base64(&[Face { kind: Kind::Squinting, ..Face::live(240) }]);
    let live = json!({"face_base_64": squinting, "check_liveness": true});
    let told = [
        bench.call("PUT /person", &with(&enrolment("staff", 240), live.clone())),
        bench.call("GET /person?collection_name=staff&person_id=p240", &json!({})),
        bench.call("GET /persons?collection_name=staff", &json!({})),
        bench.call(
            "POST /face-search",
            &json!({"collection_name": "staff", "face_base_64": face(240)}),
        ),
    ];
    for answer in told {
        let json = answer.ok().to_string();
        assert!(json.contains("p240") && !json.contains("eye"), "{json}");
        assert!(!json.contains(&number), "{json}");
    }
    assert_eq!(kept("p240"), Some(17), "a picture that does not tell leaves it as it was");
    // A check by the own eyes, and one as a stranger.
    let compare = with(&live, json!({"ref_face_base_64": face(240)}));
    for (what, body) in [("POST /compare", compare), ("POST /liveness", live)] {
        let json = bench.call(what, &body).ok().to_string();
        assert!(!json.contains(&number), "{what}: {json}");
    }
    let printed = format!("{:?}", p240());
    assert!(printed.contains("p240") && !printed.contains(&number), "{printed}");
    // Another face under the same id, alone and in bulk.
    for body in [
        with(&enrolment("staff", 240), json!({"face_base_64": shut})),
        with(&enrolment("staff", 240), json!({"face_base_64": squinting})),
    ] {
        bench.call("PUT /person", &body).ok();
        assert_eq!(kept("p240"), None);
    }
    let bulk = |id: &str, picture: &str| {
        let items = [json!({"person_id": id, "person_name": "B", "face_base_64": picture})];
        let body = json!({
            "collection_name": "staff", "face_storage_type": "NoStorage", "persons": items,
        });
        assert_eq!(bench.call("PUT /persons", &body).ok(), json!([]));
        kept("bulk")
    };
    let of_one = picture_base64(&[Face { kind: Kind::Asleep, ..Face::live(1) }]);
    assert_eq!([bulk("bulk", &of_one), bulk("bulk", &shut)], [Some(30), None]);
}

#[test]
fn the_liveness_check_alone_says_what_it_measured() {
    let bench = Bench::new();
    let check = |faces: &[Face]| {
        bench.call("POST /liveness", &json!({"face_base_64": picture_base64(faces)}))
    };
    let live = check(&[Face::live(1)]).ok();
    assert_eq!((&live["live"], &live["code"]), (&json!(true), &Value::Null));
    assert!(live["score"].as_f64().unwrap() > 0.5);
    assert!(live["pose"]["yaw"].as_f64().unwrap().abs() < 5.0);
    assert!((live["face"]["box"]["width"].as_f64().unwrap() - 200.0).abs() <= 4.0);
    let cues = |answer: &Value| -> Vec<(String, bool)> {
        let cue = |cue: &Value| {
            assert_eq!(cue["pass"], cue["score"].as_f64() >= cue["limit"].as_f64());
            (cue["name"].as_str().unwrap().to_string(), cue["pass"].as_bool().unwrap())
        };
        answer["cues"].as_array().unwrap().iter().map(cue).collect()
    };
    for passed in ["pose", "eyes", "uncovered", "pad"] {
        assert!(cues(&live).contains(&(passed.to_string(), true)), "{live}");
    }
    let attack = check(&[Face::attack(1)]).ok();
    assert_eq!((&attack["live"], &attack["code"]), (&json!(false), &json!("FACE_NOT_LIVE")));
    assert!(attack["score"].as_f64().unwrap() < 0.5);
    assert!(cues(&attack).contains(&("pad".to_string(), false)), "{attack}");
    let masked = check(&[Face { kind: scripted::Kind::Masked, ..Face::live(1) }]).ok();
    assert_eq!((&masked["code"], &masked["score"]), (&json!("FACE_IS_OCCLUDED"), &Value::Null));
    let small = check(&[Face::live(1).at(100, 100, 100)]).ok();
    assert_eq!((&small["code"], &small["cues"]), (&json!("FACE_TOO_SMALL"), &json!([])));
    refused(&check(&[]), 400, "ERR_FACE_NOT_DETECTED");
    let without = Bench::without_liveness();
    let body = json!({"face_base_64": face(1)});
    assert_eq!(without.call("POST /liveness", &body).ok()["code"], "LICENSE_ERROR");
    let models = Bench::without_models();
    refused(&models.call("POST /liveness", &body), 500, "ERR_INTERNAL_ERROR");
}

#[test]
fn any_picture_ends_in_one_reason_or_success_and_a_refused_one_is_not_stored() {
    let bench = Bench::new();
    bench.collection("staff", &[]);
    let kinds = [Kind::Live, Kind::Attack, Kind::Turned, Kind::Asleep, Kind::Masked];
    let mut persons = 0;
    for at in 0..160_i32 {
        // Walks over and past every edge, in sizes from dots to more than the picture.
        let (x, y) = ((at * 97) % 700 - 150, (at * 61) % 860 - 150);
        let side = [4, 60, 130, 170, 240, 420, 620, 900][at as usize % 8];
        let kind = kinds[at as usize % kinds.len()];
        let face = Face { person: (at % 250) as u8, kind, ..Face::live(0) }.at(x, y, side);
        let body = json!({
            "collection_name": "staff", "person_id": format!("p{at}"), "person_name": "x",
            "face_base_64": picture_base64(&[face]), "face_storage_type": "NoStorage",
            "check_liveness": true,
        });
        let answer = bench.call("PUT /person", &body);
        match answer.status {
            200 => persons += 1,
            400 => assert_eq!(answer.code(), "ERR_FACE_NOT_DETECTED", "{face:?}"),
            _ => {
                refused(&answer, 422, "ERR_LIVENESS_ERROR");
                let reason = answer.json["metadata"]["code"].clone();
                serde_json::from_value::<LivenessReason>(reason).unwrap();
            }
        }
        let staff = bench.call("GET /collection?name=staff", &json!({})).ok();
        assert_eq!(staff["num_persons"], persons, "{face:?}");
    }
    assert!(persons > 0, "some of them are good pictures");
}

#[test]
fn the_largest_of_several_faces_is_searched() {
    let bench = Bench::new();
    bench.collection("staff", &[1, 2]);
    let two = picture_base64(&[Face::live(1).at(10, 10, 200), Face::live(2).at(220, 300, 240)]);
    let body = json!({"collection_name": "staff", "face_base_64": two, "max_results": 10});
    let found = bench.call("POST /face-search", &body).ok();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["person_id"], "p2");
}

#[test]
fn every_face_of_a_picture_is_answered() {
    let bench = Bench::new();
    bench.collection("staff", &[1, 2]);
    let picture = picture_base64(&[
        Face::live(1).at(10, 10, 120),
        Face::live(7).at(200, 20, 150),
        Face::live(2).at(100, 300, 200),
    ]);
    let body = json!({"collection_name": "staff", "multi_face_img_base_64": picture});
    let answer = bench.call("POST /multi-face-search", &body).ok();
    let results = answer["person_search_results"].as_array().unwrap();
    let ids: BTreeSet<_> = results.iter().map(|r| r["person_id"].as_str().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from(["p1", "p2"]));
    let thumbnails = answer["unrecognized_face_thumbnails_base_64"].as_array().unwrap();
    assert_eq!(thumbnails.len(), 1);
    let faces = answer["faces"].as_array().unwrap();
    assert_eq!(faces[0]["person_id"], "p2", "largest first");
    assert_eq!(faces[0]["similarity_score"], 1.0);
    assert!(faces[1].get("person_id").is_none(), "the stranger");
    assert!((faces[1]["box"]["x"].as_f64().unwrap() - 200.0).abs() <= 2.0);
    assert_eq!(faces[2]["landmarks"].as_array().unwrap().len(), 5);

    let strict = with(&body, json!({"check_liveness": true}));
    refused(&bench.call("POST /multi-face-search", &strict), 422, "ERR_UNPROCESSABLE_CONTENT");
    bench.call("POST /multi-face-search", &with(&body, json!({"check_liveness": false}))).ok();
}

#[test]
fn faces_are_compared() {
    let bench = Bench::new();
    let compare = |a: u8, b: u8, extra| {
        let body = json!({"face_base_64": face(a), "ref_face_base_64": face(b)});
        bench.call("POST /compare", &with(&body, extra)).ok()
    };
    assert_eq!(compare(1, 1, json!({})), json!({"is_match": true, "similarity_score": 1.0}));
    assert_eq!(compare(1, 2, json!({})), json!({"is_match": false, "similarity_score": 0.5}));
    let inclusive = json!({"min_similarity_score": 0.5});
    assert_eq!(compare(1, 2, inclusive)["is_match"], true);
    assert_eq!(compare(1, 2, json!({"min_score": 0.51}))["is_match"], false);
    let body = json!({"face_base_64": picture_base64(&[]), "ref_face_base_64": "!"});
    // Both pictures are decoded before either is searched for a face.
    refused(&bench.call("POST /compare", &body), 422, "ERR_BASE64_IMAGE_CANNOT_BE_DECODED");
    let body = with(&body, json!({"ref_face_base_64": face(1)}));
    let answer = bench.call("POST /compare", &body);
    refused(&answer, 400, "ERR_FACE_NOT_DETECTED");
    assert_eq!(answer.json["metadata"]["field"], "face_base_64");
}

#[test]
fn bulk_enrolment_names_what_failed() {
    let bench = Bench::new();
    bench.collection("staff", &[]);
    let two = picture_base64(&[Face::live(1).at(10, 10, 200), Face::live(2).at(250, 300, 200)]);
    let item = |id: &str, picture: &str| json!({"person_id": id, "person_name": id, "face_base_64": picture});
    let mut persons = vec![
        item("none", &picture_base64(&[])),
        item("a", &face(1)),
        item("two", &two),
        item("bad", "%%%"),
        item("b", &face(2)),
        item("b", &face(3)),
    ];
    let bulk = |persons: &Value| {
        let body = json!({
            "collection_name": "staff", "face_storage_type": "StoreThumbnails", "persons": persons,
        });
        bench.call("PUT /persons", &body)
    };
    let failed = bulk(&json!(persons)).ok();
    let rows: Vec<_> = failed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |value: &Value| value.as_str().unwrap().to_string();
            (
                text(&row["code"]),
                text(&row["metadata"]["person_id"]),
                text(&row["metadata"]["index"]),
            )
        })
        .collect();
    let expected = [
        ("ERR_FACE_NOT_DETECTED", "none", "0"),
        ("ERR_MULTIPLE_FACES_DETECTED", "two", "2"),
        ("ERR_BASE64_IMAGE_CANNOT_BE_DECODED", "bad", "3"),
    ];
    assert_eq!(rows, expected.map(|(a, b, c)| (a.into(), b.into(), c.into())));
    let search = |person| {
        let body = json!({"collection_name": "staff", "face_base_64": face(person)});
        bench.call("POST /face-search", &body).ok()
    };
    assert_eq!(search(1)[0]["person_id"], "a");
    assert_eq!(search(2), json!([]), "of two items with one id the last wins");
    assert_eq!(search(3)[0]["person_id"], "b");
    assert_eq!(bulk(&json!([])).ok(), json!([]));

    persons[1]["person_name"] = json!(5);
    let refused_whole = bulk(&json!(persons));
    refused(&refused_whole, 422, "ERR_UNPROCESSABLE_CONTENT");
    let message = refused_whole.json["message"].as_str().unwrap();
    assert_eq!(message, "Invalid request: persons[1].person_name: expected a string");
    let many = vec![item("x", ""); 1001];
    refused(&bulk(&json!(many)), 422, "ERR_UNPROCESSABLE_CONTENT");
}

#[test]
fn keys_are_listed_made_and_revoked() {
    let bench = Bench::new();
    let made = bench.call("POST /keys", &json!({"name": "till", "scopes": ["search"]})).ok();
    let key = made["key"].as_str().unwrap();
    let body = json!({"face_base_64": face(1), "ref_face_base_64": face(1)});
    bench.call_as(Some(key), "POST /compare", &body).ok();
    let list = bench.call("GET /keys", &json!({})).ok();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(!list.to_string().contains(key), "a key is shown once");
    assert_eq!(made["created"], "2023-11-14T22:13:20.000Z");
    let id = json!({"id": made["id"]});
    assert_eq!(bench.call("DELETE /keys", &id).ok()["name"], "till");
    refused(&bench.call("DELETE /keys", &id), 404, "ERR_NOT_FOUND");
    refused(&bench.call_as(Some(key), "POST /compare", &body), 403, "ERR_API_KEY_NOT_VALID");
    let last = bench.roster.keys()[0].id.clone();
    let answer = bench.call("DELETE /keys", &json!({"id": last}));
    refused(&answer, 422, "ERR_UNPROCESSABLE_CONTENT");
}

#[test]
fn a_scope_opens_its_endpoints_and_no_others() {
    use Scope::{Admin, Door, Enrol, Events, Search};
    let bench = Bench::new();
    let opened_by = |method: &str, path: Path| match (method, path) {
        (_, Path::FaceSearch | Path::MultiFaceSearch | Path::Compare | Path::Liveness) => {
            vec![Search]
        }
        ("GET", Path::Collection | Path::Collections) => vec![Search, Enrol],
        (_, Path::Collection | Path::Person | Path::Persons) => vec![Enrol],
        (_, Path::Keys | Path::Audit) => vec![],
        (
            _,
            Path::Metrics | Path::Events | Path::Event | Path::EventExplain | Path::EventStream,
        ) => vec![Events],
        _ => vec![Search, Enrol, Events, Door],
    };
    for scope in [Search, Enrol, Events, Door, Admin] {
        let key = bench.key(&[scope]);
        for route in &ROUTES {
            let what = format!("{} {}", route.method, route.path.template());
            let answer = bench.call_as(Some(&key), &what, &json!({}));
            let open = route.access != Access::LocalSocket
                && (scope == Admin
                    || opened_by(route.method.as_str(), route.path).contains(&scope));
            let forbidden = answer.json["code"] == "ERR_FORBIDDEN";
            assert_eq!(forbidden, !open, "{scope:?} {what}: {}", answer.json);
            assert_eq!(answer.status == 403, forbidden, "{scope:?} {what}");
        }
    }
}

/// How many digits a number has behind its point.
fn digits(number: &Value) -> usize {
    number.as_f64().unwrap().to_string().split_once('.').map_or(0, |(_, digits)| digits.len())
}

/// Same faces score 0.987654, strangers 0.654321.
fn bench_of_long_scores() -> Bench {
    let knots = vec![[-1.0, 0.0], [0.0, 0.654_321], [1.0, 0.987_654]];
    let score_map = ScoreMap::new(knots).unwrap();
    let mut pack = scripted::pack();
    pack.embedding.score_map = score_map;
    Bench::with_pack(&pack)
}

#[test]
fn only_administrators_see_scores_to_the_last_digit() {
    let bench = bench_of_long_scores();
    bench.collection("staff", &[1]);
    let enroller = bench.key(&[Scope::Search, Scope::Enrol]);
    let search = json!({"collection_name": "staff", "face_base_64": face(1)});
    let many = json!({"collection_name": "staff", "multi_face_img_base_64": face(1)});
    let compare = json!({"face_base_64": face(1), "ref_face_base_64": face(2)});
    let again = with(&enrolment("staff", 1), json!({"person_id": "x", "check_duplicates": true}));
    let picture = json!({"face_base_64": face(1)});
    let scores = |key: &str| {
        let call = |what, body| bench.call_as(Some(key), what, body);
        let found = call("POST /face-search", &search).ok();
        let all = call("POST /multi-face-search", &many).ok();
        let duplicate = call("PUT /person", &again);
        refused(&duplicate, 409, "ERR_ALREADY_EXISTS");
        let live = call("POST /liveness", &picture).ok();
        let mut scores = vec![
            found[0]["similarity_score"].clone(),
            all["person_search_results"][0]["similarity_score"].clone(),
            all["faces"][0]["similarity_score"].clone(),
            call("POST /compare", &compare).ok()["similarity_score"].clone(),
            duplicate.json["metadata"]["similarity_score"].as_str().unwrap().parse().unwrap(),
            live["score"].clone(),
        ];
        scores.extend(live["cues"].as_array().unwrap().iter().map(|cue| cue["score"].clone()));
        scores
    };
    let (exact, shown) = (scores(&bench.admin), scores(&enroller));
    let exact_digits: Vec<usize> = exact.iter().map(digits).collect();
    assert!(exact_digits[..5].iter().all(|digits| *digits > 4), "{exact:?}");
    assert_eq!(shown[..5], [json!(0.98), json!(0.98), json!(0.98), json!(0.65), json!(0.98)]);
    for (exact, shown) in exact.iter().zip(&shown) {
        assert!(digits(shown) <= 2, "{shown}");
        let loss = exact.as_f64().unwrap() - shown.as_f64().unwrap();
        assert!((-1e-4..0.01).contains(&loss), "{exact} {shown}");
    }
    // What was answered can be sent back; between two hundredths the stricter one counts.
    for (key, least, matches) in
        [(&enroller, 0.98, 1), (&enroller, 0.981, 0), (&bench.admin, 0.981, 1)]
    {
        let body = with(&search, json!({"min_similarity_score": least}));
        let found = bench.call_as(Some(key), "POST /face-search", &body).ok();
        assert_eq!(found.as_array().unwrap().len(), matches, "{least}");
    }
}

#[test]
fn a_key_that_probes_close_to_a_match_again_and_again_has_to_wait() {
    let bench = bench_of_long_scores();
    bench.collection("staff", &[1]);
    let key = bench.key(&[Scope::Search]);
    let near = json!({"face_base_64": face(1), "ref_face_base_64": face(2)});
    let search = json!({"collection_name": "staff", "face_base_64": face(2)});
    let two = picture_base64(&[Face::live(2).at(10, 20, 150), Face::live(3).at(250, 20, 160)]);
    let many = json!({"collection_name": "staff", "multi_face_img_base_64": two});
    // Every kind of search counts, each face of a picture by itself.
    let mut probes = 0;
    while probes < NEAR_MISSES_MAX {
        bench.call_as(Some(&key), "POST /compare", &near).ok();
        let found = bench.call_as(Some(&key), "POST /face-search", &search).ok();
        assert_eq!(found, json!([]), "a near miss is no match");
        bench.call_as(Some(&key), "POST /multi-face-search", &many).ok();
        probes += 4;
    }
    // The next one is one too many, and the last that is answered.
    bench.call_as(Some(&key), "POST /compare", &near).ok();
    probes += 1;
    let metrics = bench.call("GET /metrics", &json!({}));
    let text = std::str::from_utf8(metrics.response.body()).unwrap();
    assert!(text.contains(&format!("key_faults_total{{fault=\"near_miss\"}} {probes}")), "{text}");
    let lenient = |body: &Value| with(body, json!({"min_similarity_score": 0.3}));
    for (what, body) in [
        ("POST /compare", near.clone()),
        ("POST /face-search", lenient(&search)),
        ("POST /multi-face-search", lenient(&many)),
    ] {
        let answer = bench.call_as(Some(&key), what, &body);
        refused(&answer, 429, "ERR_TOO_MANY_REQUESTS");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 1, "{what}");
    }
    // Who matches by the usual threshold is let in all the same.
    assert_eq!(bench.call_as(Some(&key), "POST /face-search", &search).ok(), json!([]));
    let known = json!({"collection_name": "staff", "face_base_64": face(1)});
    for body in [lenient(&known), known.clone()] {
        let found = bench.call_as(Some(&key), "POST /face-search", &body).ok();
        assert_eq!(found.as_array().unwrap().len(), 1);
    }
    let same = json!({"face_base_64": face(1), "ref_face_base_64": face(1)});
    bench.call_as(Some(&key), "POST /compare", &same).ok();
    bench.call_as(Some(&bench.key(&[Scope::Search])), "POST /compare", &near).ok();
    bench.call("POST /compare", &near).ok();
}

#[test]
fn a_check_for_duplicates_is_a_probe_too() {
    let bench = bench_of_long_scores();
    bench.collection("staff", &[1]);
    let key = bench.key(&[Scope::Enrol]);
    let body = |least: f32| {
        let own = json!({"person_id": "x", "check_duplicates": true,
            "duplicate_check_min_similarity": least});
        with(&enrolment("staff", 2), own)
    };
    for _ in 0..=NEAR_MISSES_MAX {
        refused(&bench.call_as(Some(&key), "PUT /person", &body(0.1)), 409, "ERR_ALREADY_EXISTS");
    }
    let answer = bench.call_as(Some(&key), "PUT /person", &body(0.1));
    refused(&answer, 429, "ERR_TOO_MANY_REQUESTS");
    refused(&bench.call("PUT /person", &body(0.1)), 409, "ERR_ALREADY_EXISTS");
    bench.call_as(Some(&key), "PUT /person", &body(0.7)).ok();
}

#[test]
fn an_address_that_tries_keys_is_locked_out_and_good_keys_never() {
    let bench = Bench::new();
    let ask = |key: &str, from: Caller| bench.send(request("GET /keys", Some(key), ""), from);
    let loopback = Caller::Network { address: std::net::Ipv4Addr::LOCALHOST.into() };
    for _ in 0..=BAD_KEYS_MAX {
        refused(&ask("wrong", LAN), 403, "ERR_API_KEY_NOT_VALID");
        refused(&ask("wrong", loopback), 403, "ERR_API_KEY_NOT_VALID");
    }
    refused(&ask("wrong", LAN), 429, "ERR_TOO_MANY_REQUESTS");
    ask(&bench.admin, LAN).ok();
    refused(&ask("wrong", loopback), 403, "ERR_API_KEY_NOT_VALID");
    assert!(ask("wrong", LAN).header("retry-after").parse::<u64>().unwrap() > 60);
    ask(&bench.admin, WAN).ok();
    ask(&bench.admin, loopback).ok();
    bench.send(request("GET /keys", None, ""), Caller::LocalSocket).ok();
    assert_eq!(bench.send(request("GET /health", None, ""), LAN).status, 200);
}

#[test]
fn the_local_socket_needs_no_key_and_an_empty_key_is_none() {
    let bench = Bench::new();
    let listed = bench.send(request("GET /keys", None, ""), Caller::LocalSocket);
    assert_eq!(listed.ok().as_array().unwrap().len(), 1);
    refused(&bench.call_as(Some(""), "GET /keys", &json!({})), 401, "ERR_API_KEY_NOT_PRESENT");
    let mut odd = request("GET /keys", None, "");
    let value = hyper::header::HeaderValue::from_bytes(b"\xff\xfe").unwrap();
    odd.headers_mut().insert("x-api-key", value);
    refused(&bench.send(odd, LAN), 403, "ERR_API_KEY_NOT_VALID");
}

#[test]
fn metrics_are_open_where_the_configuration_says() {
    let loader = ScriptedLoader::default();
    for (rule, caller, open) in [
        (MetricsAccess::Key, LAN, false),
        (MetricsAccess::Lan, LAN, true),
        (MetricsAccess::Lan, WAN, false),
        (MetricsAccess::Lan, Caller::LocalSocket, true),
        (MetricsAccess::Key, Caller::LocalSocket, true),
    ] {
        let bench = Bench::with(&scripted::pack(), &loader, rule);
        let answer = bench.send(request("GET /metrics", None, ""), caller);
        assert_eq!(answer.status, if open { 200 } else { 401 }, "{rule:?} {caller:?}");
        let key = bench.key(&[Scope::Events]);
        let answer = bench.send(request("GET /metrics", Some(&key), ""), caller);
        let text = std::str::from_utf8(answer.response.body()).unwrap();
        let counted = "http_requests_total{route=\"/metrics\"";
        assert!(text.contains(counted), "the request before was counted: {text}");
        assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    }
}

#[test]
fn health_readiness_and_pages_need_no_key() {
    let bench = Bench::new();
    bench.collection("staff", &[1, 2]);
    let health = bench.call_as(None, "GET /health", &json!({})).ok();
    assert_eq!(health["status"], "ok");
    let ready = bench.call_as(None, "GET /ready", &json!({})).ok();
    let expected = json!({
        "status": "ok", "pack": "scripted", "notice": ready["notice"], "liveness": true,
        "collections": 1, "num_persons": 2, "cameras": [{"name": "front", "up": true}],
        "broker": {"name": "broker.lan", "up": false},
    });
    assert_eq!(ready, expected);
    for page in ["/docs", "//docs", "/docs/", "/rapidoc", "/docs/docs.js", "/docs/swagger-ui.css"] {
        let answer = bench.call_as(None, &format!("GET {page}"), &json!({}));
        assert_eq!(answer.status, 200, "{page}");
        assert!(answer.header("content-type").starts_with("text/"), "{page}");
    }
    let absent = bench.call_as(None, "GET /docs/absent.js", &json!({}));
    refused(&absent, 404, "ERR_ROUTE_NOT_FOUND");
}

#[test]
fn unknown_routes_and_methods_are_json_too() {
    let bench = Bench::new();
    for what in ["GET /", "POST /v1/face-search", "GET /face-search/", "GET /favicon.ico"] {
        refused(&bench.call_as(None, what, &json!({})), 404, "ERR_ROUTE_NOT_FOUND");
    }
    for what in ["GET /face-search", "HEAD /health", "OPTIONS /person", "PATCH /collection"] {
        let answer = bench.call_as(None, what, &json!({}));
        refused(&answer, 405, "ERR_METHOD_NOT_ALLOWED");
        assert!(!answer.header("allow").is_empty(), "{what}");
    }
}

#[test]
fn what_the_server_refuses_is_answered_in_the_same_words() {
    let bench = Bench::new();
    let service = &bench.service;
    let (head, _) = request("POST /face-search", None, "").into_parts();
    let rows = [
        (service.too_large(&head), 413, "ERR_PAYLOAD_IS_TOO_LARGE"),
        (service.timed_out(&head, TimedOut::Body), 422, "ERR_UNPROCESSABLE_CONTENT"),
        (service.timed_out(&head, TimedOut::Handling), 429, "ERR_TOO_MANY_REQUESTS"),
        (service.busy(&head), 429, "ERR_TOO_MANY_REQUESTS"),
        (service.failed(&head), 500, "ERR_INTERNAL_ERROR"),
        (service.bad_request(BadRequest::Malformed), 422, "ERR_UNPROCESSABLE_CONTENT"),
        (service.bad_request(BadRequest::PlainHttp), 422, "ERR_UNPROCESSABLE_CONTENT"),
        (service.bad_request(BadRequest::UriTooLong), 413, "ERR_PAYLOAD_IS_TOO_LARGE"),
        (service.bad_request(BadRequest::HeadTooLarge), 413, "ERR_PAYLOAD_IS_TOO_LARGE"),
    ];
    for (response, status, code) in rows {
        refused(&Answer::of(response), status, code);
    }
}

#[test]
fn without_models_everything_else_works() {
    let bench = Bench::without_models();
    bench.call("POST /collection", &json!({"name": "staff"})).ok();
    assert_eq!(bench.call("GET /collections", &json!({})).ok()[0]["num_persons"], 0);
    assert_eq!(bench.call_as(None, "GET /health", &json!({})).ok()["status"], "ok");
    let search = json!({"collection_name": "staff", "face_base_64": face(1)});
    for (what, body) in [
        ("PUT /person", enrolment("staff", 1)),
        ("POST /face-search", search),
        ("POST /compare", json!({"face_base_64": "", "ref_face_base_64": ""})),
        ("GET /ready", json!({})),
    ] {
        let answer = bench.call(what, &body);
        refused(&answer, 500, "ERR_INTERNAL_ERROR");
        assert_eq!(answer.json["metadata"]["reason"], "no models are installed", "{what}");
    }
    let missing = json!({"collection_name": "none", "face_base_64": face(1)});
    refused(&bench.call("POST /face-search", &missing), 404, "ERR_NOT_FOUND");
}

#[test]
fn a_failing_network_is_an_internal_error() {
    for name in [scripted::DETECTOR, scripted::LANDMARK_NETWORK, scripted::EMBEDDING] {
        let loader = ScriptedLoader::failing(name);
        let bench = Bench::with(&scripted::pack_with_landmarks(), &loader, MetricsAccess::Key);
        let body = json!({"face_base_64": face(1), "ref_face_base_64": face(1)});
        let answer = bench.call("POST /compare", &body);
        refused(&answer, 500, "ERR_INTERNAL_ERROR");
        assert!(!answer.json.to_string().contains("script"), "the cause is for the log");
    }
}

#[test]
fn a_failing_store_is_answered_503_and_nothing_changes() {
    let bench = Bench::new();
    bench.collection("staff", &[1]);
    let bulk = json!({
        "collection_name": "staff", "face_storage_type": "NoStorage",
        "persons": [{"person_id": "x", "person_name": "x", "face_base_64": face(2)}],
    });
    for (what, body) in [
        ("POST /collection", json!({"name": "new"})),
        ("DELETE /collection", json!({"name": "staff"})),
        ("PUT /person", enrolment("staff", 2)),
        ("DELETE /person", json!({"collection_name": "staff", "person_id": "p1"})),
        ("PUT /persons", bulk),
        ("POST /keys", json!({"name": "n", "scopes": ["door"]})),
    ] {
        bench.store.fail_next(1);
        let answer = bench.call(what, &body);
        refused(&answer, 503, "ERR_DATABASE_ERROR");
        assert_eq!(answer.header("retry-after"), "5", "{what}");
    }
    let expected = json!([{"name": "staff", "num_persons": 1}]);
    assert_eq!(bench.call("GET /collections", &json!({})).ok(), expected);
    assert_eq!(bench.roster.keys().len(), 1);
}

#[test]
fn a_full_queue_is_answered_429_at_once() {
    let bench = Bench::new();
    bench.collection("staff", &[]);
    let (started, starts) = mpsc::channel();
    let mut releases = Vec::new();
    // One job that runs and two that wait fill the pool of one worker.
    let threads: Vec<_> = (0..3)
        .map(|index| {
            let pool = bench.pool.clone();
            let started = started.clone();
            let (release, released) = mpsc::channel::<()>();
            releases.push(release);
            let thread = std::thread::spawn(move || {
                pool.run_blocking(Lane::Request, move |_| {
                    started.send(()).unwrap();
                    let _ = released.recv();
                })
            });
            if index == 0 {
                starts.recv().unwrap();
            }
            thread
        })
        .collect();
    while bench.pool.stats().request_queued < 2 {
        std::thread::yield_now();
    }
    let body = json!({"collection_name": "staff", "face_base_64": face(1)});
    let answer = bench.call("POST /face-search", &body);
    refused(&answer, 429, "ERR_TOO_MANY_REQUESTS");
    assert_eq!(answer.header("retry-after"), "1");
    // What needs no recognition is served meanwhile.
    bench.call("GET /collections", &json!({})).ok();
    drop(releases);
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    bench.call("POST /face-search", &body).ok();
}

#[test]
fn pictures_that_claim_to_be_huge_are_refused() {
    let bench = Bench::new();
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 8, 2, 0, 0, 0]);
    png.extend(crc_of_header(&png[12..29]).to_be_bytes());
    let good = jpeg(&[Face::live(1)]);
    let cut = good[..good.len() / 3].to_vec();
    for file in [png, b"GIF89a".to_vec(), vec![], vec![0xff, 0xd8, 0xff], cut[..64].to_vec()] {
        let picture = base64_image::encode(&file);
        let body = json!({"face_base_64": picture, "ref_face_base_64": face(1)});
        let answer = bench.call("POST /compare", &body);
        refused(&answer, 422, "ERR_BASE64_IMAGE_CANNOT_BE_DECODED");
        assert_eq!(answer.json["metadata"]["field"], "face_base_64");
        assert!(answer.json["metadata"]["reason"].is_string());
    }
}

/// CRC-32 as PNG defines it.
fn crc_of_header(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn the_openapi_document_and_the_routes_agree() {
    let bench = Bench::new();
    let document = bench.call_as(None, "GET /openapi.json", &json!({})).ok();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    let mut codes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert((path.clone(), method.to_uppercase()));
            for (status, response) in operation["responses"].as_object().unwrap() {
                let text = response["description"].as_str().unwrap();
                for code in ErrorCode::ALL.map(ErrorCode::row) {
                    if text.contains(&format!("`{}`", code.code)) {
                        assert_eq!(status, &code.status.to_string());
                        codes.insert(code.code.to_string());
                    }
                }
            }
            let marked = operation["x-extension"] == true;
            let said = operation["description"].as_str().unwrap().starts_with("Extension");
            assert_eq!(marked, said, "{method} {path}");
            let ours = !CONTRACT.contains(&format!("{} {path}", method.to_uppercase()).as_str());
            assert_eq!(marked, ours, "{method} {path}");
        }
    }
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| (route.path.template().to_string(), route.method.to_string()))
        .collect();
    assert_eq!(described, routes);
    let table: BTreeSet<_> = ErrorCode::ALL.iter().map(|c| c.row().code.to_string()).collect();
    assert_eq!(codes, table);
    let words = document["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap();
    let words: BTreeSet<_> = words.iter().map(|w| w.as_str().unwrap().to_string()).collect();
    assert_eq!(words, table);
    assert_references_exist(&document, &document);
}

/// The endpoints of the API family; all others are extensions.
const CONTRACT: [&str; 7] = [
    "POST /collection",
    "DELETE /collection",
    "PUT /person",
    "PUT /persons",
    "POST /face-search",
    "POST /multi-face-search",
    "POST /compare",
];

fn assert_references_exist(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| assert_references_exist(document, value));
        }
        Value::Array(items) => {
            for item in items {
                assert_references_exist(document, item);
            }
        }
        _ => {}
    }
}

#[test]
fn the_forms_in_the_document_are_those_of_the_contract() {
    let bench = Bench::new();
    let document = bench.call_as(None, "GET /openapi.json", &json!({})).ok();
    let schemas = &document["components"]["schemas"];
    let required = |form: &str| {
        let names = schemas[form]["required"].as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap().to_string()).collect::<BTreeSet<_>>()
    };
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let person =
        ["person_id", "person_name", "collection_name", "face_base_64", "face_storage_type"];
    assert_eq!(required("PersonForm"), set(&person));
    assert_eq!(required("FaceSearchForm"), set(&["collection_name", "face_base_64"]));
    let multi = ["collection_name", "multi_face_img_base_64"];
    assert_eq!(required("MultiFaceSearchForm"), set(&multi));
    assert_eq!(required("CompareForm"), set(&["face_base_64", "ref_face_base_64"]));
    assert_eq!(required("BulkForm"), set(&["collection_name", "face_storage_type", "persons"]));
    let storage = &schemas["StorageForm"]["enum"];
    assert_eq!(*storage, json!(["NoStorage", "StoreThumbnails", "StoreFullImage"]));
    let threshold = &schemas["FaceSearchForm"]["properties"]["min_similarity_score"];
    assert_eq!(threshold["default"], 0.7);
}

#[test]
fn the_reference_lists_every_error() {
    let reference = include_str!("../docs/ref/http.md");
    let rows: Vec<String> = ErrorCode::ALL
        .map(ErrorCode::row)
        .into_iter()
        .map(|row| {
            let message = match row.code {
                "ERR_UNPROCESSABLE_CONTENT" => format!("{}*field*: *detail*", row.message),
                _ => row.message.to_string(),
            };
            format!("| `{}` | {message} | {} |", row.code, row.status)
        })
        .collect();
    let listed: Vec<&str> = reference.lines().filter(|line| line.starts_with("| `ERR_")).collect();
    assert_eq!(listed, rows);
}

/// JSON that nests a little and mixes names of the contract with nonsense.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("staff")),
        Just(json!("NoStorage")),
        Just(json!("U2Vjb25kIGltYWdl")),
    ];
    let name = prop_oneof![
        ".{0,6}".prop_map(String::from),
        proptest::sample::select(vec![
            "name",
            "collection_name",
            "person_id",
            "person_name",
            "face_base_64",
            "persons",
            "Persons",
            "metadata",
            "max_results",
            "min_score",
            "min_similarity_score",
            "scopes",
            "face_storage_type",
            "check_liveness",
            "ref_face_base_64",
            "multi_face_img_base_64",
            "id",
        ])
        .prop_map(String::from),
    ];
    leaf.prop_recursive(4, 48, 10, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..10)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every answer is 200 with JSON, or an error object with its row of the table.
fn assert_well_formed(answer: &Answer) {
    assert!(answer.json.is_object() || answer.json.is_array(), "{:?}", answer.response);
    if answer.status != 200 {
        let row = ErrorCode::ALL.map(ErrorCode::row).into_iter().find(|r| r.code == answer.code());
        let row = row.expect("a code of the table");
        assert_eq!(answer.status, row.status);
        assert!(answer.json["message"].as_str().unwrap().starts_with(row.message));
        assert_ne!(answer.status, 500, "{}", answer.json);
    }
}

thread_local! {
    static FUZZED: Bench = {
        let bench = Bench::new();
        bench.collection("staff", &[1]);
        bench
    };
}

fn any_request() -> impl Strategy<Value = String> {
    proptest::sample::select(
        ROUTES
            .iter()
            .filter(|r| !matches!(r.path, Path::Metrics | Path::EventStream))
            .filter(|r| r.path.template().matches("doc").count() == 0)
            .map(|r| format!("{} {}", r.method, r.path.template()))
            .collect::<Vec<_>>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_json_breaks_the_service(what in any_request(), body in any_json()) {
        FUZZED.with(|bench| assert_well_formed(&bench.call(&what, &body)));
    }

    #[test]
    fn no_bytes_break_the_service(what in any_request(), body: Vec<u8>, key: bool) {
        FUZZED.with(|bench| {
            let key = key.then_some(bench.admin.as_str());
            assert_well_formed(&bench.send(request(&what, key, Bytes::from(body)), LAN));
        });
    }

    #[test]
    fn no_picture_breaks_the_service(file: Vec<u8>, kind in 0..3) {
        let start: &[u8] = match kind {
            0 => b"",
            1 => b"\xff\xd8\xff\xe0",
            _ => b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        };
        let picture = base64_image::encode(&[start, &file].concat());
        let body = json!({"face_base_64": picture, "ref_face_base_64": picture});
        FUZZED.with(|bench| assert_well_formed(&bench.call("POST /compare", &body)));
    }

    #[test]
    fn no_query_breaks_the_service(query in "[ -~&&[^ \"<>`#{}|\\\\^]]{0,40}") {
        for path in ["/persons", "/person", "/collection"] {
            let what = format!("GET {path}?collection_name=staff&{query}");
            FUZZED.with(|bench| {
                assert_well_formed(&bench.send(request(&what, Some(&bench.admin), ""), LAN));
            });
        }
    }
}
