//! What clients send: one struct per request body, read by serde and described by utoipa.
//!
//! Ranges are checked while reading, so a form in hand is well-formed; whether names exist is the
//! handlers' business. No `Debug`: forms hold pictures.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use utoipa::ToSchema;

use crate::face::comparison::Score;
use crate::gallery::names::PersonId;
use crate::gallery::person::FaceStorageType;
use crate::store::Scope;
use crate::web::error::ApiError;

/// Threshold of a search or comparison, unless the caller says otherwise.
pub const MIN_SIMILARITY_DEFAULT: f32 = 0.7;
/// Most results of one search; more are clamped.
pub const RESULTS_MAX: usize = 500;
/// Most people in one bulk enrolment.
pub const BULK_PERSONS_MAX: usize = 1000;
/// Longest name of a person, in bytes of UTF-8.
pub const PERSON_NAME_BYTES_MAX: usize = 1024;
/// Most metadata of one person: bytes of all names and values together. It stays in memory for
/// every person.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Longest name of an API key, in bytes of UTF-8.
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// `POST /collection`, `DELETE /collection`
#[derive(Deserialize, ToSchema)]
pub struct CollectionForm {
    /// ASCII letters, digits, `_`, `-`, `.`; case-sensitive and immutable.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[A-Za-z0-9_.\-]+$")]
    pub name: String,
}

/// `PUT /person`
#[derive(Deserialize, ToSchema)]
pub struct PersonForm {
    /// Identity in the collection, case-sensitive; an existing id is updated.
    #[serde(deserialize_with = "person_id")]
    #[schema(value_type = String, min_length = 1, max_length = 255)]
    pub person_id: PersonId,
    /// Name for people.
    #[serde(deserialize_with = "person_name")]
    pub person_name: String,
    /// The collection, which must exist.
    pub collection_name: String,
    /// JPEG or PNG file with one face, in base64.
    pub face_base_64: String,
    /// Which picture is kept.
    pub face_storage_type: StorageForm,
    /// Refuse a face that is already enrolled under another id.
    #[serde(default)]
    pub check_duplicates: bool,
    /// Threshold of that check.
    #[serde(default = "default_similarity", deserialize_with = "similarity")]
    #[schema(value_type = f32, minimum = 0, maximum = 1, default = 0.7)]
    pub duplicate_check_min_similarity: Score,
    /// Test liveness; on failure nothing is stored.
    #[serde(default)]
    pub check_liveness: bool,
    /// Free text to go with the person. Numbers and booleans become text (extension).
    #[serde(default, deserialize_with = "metadata")]
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub metadata: BTreeMap<String, String>,
    /// Extension: append the face to the person's reference faces, at most 16, instead of
    /// replacing them.
    #[serde(default)]
    pub add_face: bool,
}

/// `PUT /persons`
#[derive(Deserialize, ToSchema)]
pub struct BulkForm {
    /// The collection, which must exist.
    pub collection_name: String,
    /// Which pictures are kept.
    pub face_storage_type: StorageForm,
    /// At most 1000 people. The spelling `Persons` is accepted too.
    #[serde(alias = "Persons")]
    #[schema(max_items = 1000)]
    pub persons: Vec<BulkPersonForm>,
}

/// One person of `PUT /persons`
#[derive(Deserialize, ToSchema)]
pub struct BulkPersonForm {
    /// Identity in the collection; of two items with one id the last wins.
    #[serde(deserialize_with = "person_id")]
    #[schema(value_type = String, min_length = 1, max_length = 255)]
    pub person_id: PersonId,
    /// Name for people.
    #[serde(deserialize_with = "person_name")]
    pub person_name: String,
    /// JPEG or PNG file with one face, in base64.
    pub face_base_64: String,
    /// Free text to go with the person.
    #[serde(default, deserialize_with = "metadata")]
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub metadata: BTreeMap<String, String>,
}

/// `DELETE /person`
#[derive(Deserialize, ToSchema)]
pub struct PersonKeyForm {
    /// The collection, which must exist.
    pub collection_name: String,
    /// Identity in the collection.
    #[serde(deserialize_with = "person_id")]
    #[schema(value_type = String, min_length = 1, max_length = 255)]
    pub person_id: PersonId,
}

/// `POST /face-search`
#[derive(Deserialize, ToSchema)]
pub struct FaceSearchForm {
    /// The collection to search.
    pub collection_name: String,
    /// JPEG or PNG file, in base64; the largest face is searched.
    pub face_base_64: String,
    /// Test liveness before the search.
    #[serde(default)]
    pub check_liveness: bool,
    /// Least score of a match, inclusive; 0.7 when absent.
    #[serde(default, deserialize_with = "optional_similarity")]
    #[schema(value_type = Option<f32>, minimum = 0, maximum = 1, default = 0.7)]
    pub min_similarity_score: Option<Score>,
    /// Extension: counts when `min_similarity_score` is absent.
    #[serde(default, deserialize_with = "optional_similarity")]
    #[schema(value_type = Option<f32>, minimum = 0, maximum = 1)]
    pub min_score: Option<Score>,
    /// Most results; more than 500 means 500.
    #[serde(default = "default_results", deserialize_with = "max_results")]
    #[schema(value_type = u64, minimum = 1, default = 1)]
    pub max_results: usize,
}

/// `POST /multi-face-search`
#[derive(Deserialize, ToSchema)]
pub struct MultiFaceSearchForm {
    /// The collection to search.
    pub collection_name: String,
    /// JPEG or PNG file, in base64; every face is searched.
    pub multi_face_img_base_64: String,
    /// Least score of a match, inclusive; 0.7 when absent.
    #[serde(default, deserialize_with = "optional_similarity")]
    #[schema(value_type = Option<f32>, minimum = 0, maximum = 1, default = 0.7)]
    pub min_similarity_score: Option<Score>,
    /// Extension: counts when `min_similarity_score` is absent.
    #[serde(default, deserialize_with = "optional_similarity")]
    #[schema(value_type = Option<f32>, minimum = 0, maximum = 1)]
    pub min_score: Option<Score>,
    /// Extension: there is no liveness test here, so `true` is refused rather than ignored.
    #[serde(default)]
    pub check_liveness: bool,
}

/// `POST /compare`
#[derive(Deserialize, ToSchema)]
pub struct CompareForm {
    /// JPEG or PNG file, in base64: the face that liveness is tested on.
    pub face_base_64: String,
    /// JPEG or PNG file, in base64: the face to compare with.
    pub ref_face_base_64: String,
    /// Least score of a match, inclusive; 0.7 when absent.
    #[serde(default, deserialize_with = "optional_similarity")]
    #[schema(value_type = Option<f32>, minimum = 0, maximum = 1, default = 0.7)]
    pub min_similarity_score: Option<Score>,
    /// Extension: counts when `min_similarity_score` is absent.
    #[serde(default, deserialize_with = "optional_similarity")]
    #[schema(value_type = Option<f32>, minimum = 0, maximum = 1)]
    pub min_score: Option<Score>,
    /// Test liveness of `face_base_64` first.
    #[serde(default)]
    pub check_liveness: bool,
}

/// `POST /liveness`
#[derive(Deserialize, ToSchema)]
pub struct LivenessForm {
    /// JPEG or PNG file, in base64.
    pub face_base_64: String,
}

/// `POST /keys`
#[derive(Deserialize, ToSchema)]
pub struct KeyForm {
    /// Name for people.
    #[serde(deserialize_with = "key_name")]
    #[schema(min_length = 1, max_length = 255)]
    pub name: String,
    /// What the key may do, at least one.
    #[serde(deserialize_with = "scopes")]
    #[schema(value_type = Vec<ScopeForm>, min_items = 1)]
    pub scopes: Vec<Scope>,
}

/// `DELETE /keys`
#[derive(Deserialize, ToSchema)]
pub struct KeyIdForm {
    /// The key's public id.
    pub id: String,
}

/// Which picture of a person is kept: none, the crop around the face, or the posted file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[allow(missing_docs, reason = "the names are the contract's words")]
pub enum StorageForm {
    NoStorage,
    StoreThumbnails,
    StoreFullImage,
}

/// What a key may do; `admin` may do everything.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(missing_docs, dead_code, reason = "describes `store::Scope`, which knows no OpenAPI")]
pub enum ScopeForm {
    Search,
    Enrol,
    Events,
    Door,
    Admin,
}

impl From<StorageForm> for FaceStorageType {
    fn from(form: StorageForm) -> Self {
        match form {
            StorageForm::NoStorage => Self::NoStorage,
            StorageForm::StoreThumbnails => Self::StoreThumbnails,
            StorageForm::StoreFullImage => Self::StoreFullImage,
        }
    }
}

/// The threshold of a search: the real field, else its alias, else the default.
pub fn least_score(real: Option<Score>, alias: Option<Score>) -> Score {
    real.or(alias).unwrap_or_else(default_similarity)
}

/// A person's id from a query.
pub fn person_id_of(text: &str) -> Result<PersonId, ApiError> {
    PersonId::new(text).map_err(|error| ApiError::invalid("person_id", &error.to_string()))
}

fn default_similarity() -> Score {
    Score::new(MIN_SIMILARITY_DEFAULT).expect("the default lies between 0 and 1")
}

fn default_results() -> usize {
    1
}

fn person_id<'de, D: Deserializer<'de>>(from: D) -> Result<PersonId, D::Error> {
    PersonId::new(&String::deserialize(from)?).map_err(D::Error::custom)
}

fn person_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    if name.len() > PERSON_NAME_BYTES_MAX {
        return Err(D::Error::custom(format!("at most {PERSON_NAME_BYTES_MAX} bytes")));
    }
    Ok(name)
}

fn key_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let fits = (1..=KEY_NAME_BYTES_MAX).contains(&name.len());
    if fits && !name.chars().any(char::is_control) {
        return Ok(name);
    }
    Err(D::Error::custom(format!("1 to {KEY_NAME_BYTES_MAX} bytes without control characters")))
}

fn scopes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Scope>, D::Error> {
    let mut scopes: Vec<Scope> = Vec::deserialize(from)?;
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() {
        return Err(D::Error::custom("at least one scope"));
    }
    Ok(scopes)
}

fn similarity<'de, D: Deserializer<'de>>(from: D) -> Result<Score, D::Error> {
    let value = f64::deserialize(from)?;
    // Judged before the way to f32, which would round 1.00000001 to 1.
    let score = (0.0..=1.0).contains(&value).then(|| Score::new(value as f32)).flatten();
    score.ok_or_else(|| D::Error::custom("expected a number from 0 to 1"))
}

fn optional_similarity<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Score>, D::Error> {
    similarity(from).map(Some)
}

fn max_results<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let value = u64::deserialize(from)?;
    if value == 0 {
        return Err(D::Error::custom("expected a whole number from 1"));
    }
    Ok(usize::try_from(value).unwrap_or(RESULTS_MAX).min(RESULTS_MAX))
}

fn metadata<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let entries: BTreeMap<String, Text> = BTreeMap::deserialize(from)?;
    let bytes: usize = entries.iter().map(|(name, Text(value))| name.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(D::Error::custom(format!("at most {METADATA_BYTES_MAX} bytes together")));
    }
    Ok(entries.into_iter().map(|(name, Text(value))| (name, value)).collect())
}

/// Text, or a number or boolean in its JSON spelling.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("text, a number or a boolean")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Text, E> {
        Ok(Text(value))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::web::body::read;

    fn person(changes: &Value) -> Result<PersonForm, String> {
        let mut body = json!({
            "person_id": "p", "person_name": "P", "collection_name": "c",
            "face_base_64": "", "face_storage_type": "NoStorage",
        });
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        read(&Bytes::from(body.to_string())).map_err(|error| error.body().message.into_owned())
    }

    #[test]
    fn the_defaults_of_the_contract() {
        let form = person(&json!({})).unwrap();
        assert!(!form.check_duplicates && !form.check_liveness && !form.add_face);
        assert_eq!(form.duplicate_check_min_similarity.value(), 0.7);
        assert!(form.metadata.is_empty());
        let search: FaceSearchForm =
            read(&Bytes::from_static(br#"{"collection_name":"c","face_base_64":""}"#)).unwrap();
        assert_eq!(search.max_results, 1);
        assert_eq!(least_score(search.min_similarity_score, search.min_score).value(), 0.7);
    }

    #[test]
    fn what_a_person_may_not_be() {
        let table = [
            (json!({"person_id": ""}), "person_id: a person_id holds 1 to 255 bytes"),
            (json!({"person_id": 7}), "person_id: expected a string"),
            (json!({"person_id": null}), "person_id: required"),
            (json!({"person_name": "x".repeat(1025)}), "person_name: at most 1024 bytes"),
            (json!({"face_storage_type": "Cloud"}), "face_storage_type: expected one of"),
            (json!({"face_storage_type": "nostorage"}), "face_storage_type: expected one of"),
            (json!({"duplicate_check_min_similarity": 1.1}), "duplicate_check_min_similarity: exp"),
            (json!({"duplicate_check_min_similarity": -0.1}), "duplicate_check_min_similarity: e"),
            (json!({"duplicate_check_min_similarity": "0.7"}), "duplicate_check_min_similarity: "),
            (json!({"check_liveness": 1}), "check_liveness: expected a boolean"),
            (json!({"metadata": []}), "metadata: expected a map"),
            (json!({"metadata": {"a": {"b": "c"}}}), "metadata.a: expected text, a number"),
            (json!({"metadata": {"a": ["b"]}}), "metadata.a: expected text, a number"),
            (json!({"metadata": {"a": "b".repeat(17_000)}}), "metadata: at most 16384 bytes"),
        ];
        for (changes, expected) in table {
            let message = person(&changes).err().unwrap_or_default();
            let complaint = message.strip_prefix("Invalid request: ").unwrap_or_default();
            assert!(complaint.starts_with(expected), "{changes}: {message}");
        }
    }

    #[test]
    fn metadata_becomes_text() {
        let metadata = json!({"a": "x", "b": 7, "c": -1.5, "d": true, "e": null, "f": 1e3});
        let form = person(&json!({"metadata": metadata})).unwrap();
        let expected = [("a", "x"), ("b", "7"), ("c", "-1.5"), ("d", "true"), ("f", "1000")];
        let expected = expected.map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(form.metadata, BTreeMap::from(expected));
    }

    #[test]
    fn thresholds_and_numbers_of_results() {
        let read_search = |extra: Value| {
            let mut body = json!({"collection_name": "c", "face_base_64": ""});
            for (name, value) in extra.as_object().unwrap() {
                body[name] = value.clone();
            }
            read::<FaceSearchForm>(&Bytes::from(body.to_string()))
        };
        let least = |extra| {
            let form = read_search(extra).ok().unwrap();
            least_score(form.min_similarity_score, form.min_score).value()
        };
        assert_eq!(least(json!({"min_score": 0.95})), 0.95);
        assert_eq!(least(json!({"min_score": 0.95, "min_similarity_score": 0.5})), 0.5);
        assert_eq!(least(json!({"min_similarity_score": 1})), 1.0);
        assert_eq!(read_search(json!({"max_results": 10_000_000})).ok().unwrap().max_results, 500);
        for bad in [json!(0), json!(-1), json!(1.5), json!("1"), json!(1e30), json!(true)] {
            assert!(read_search(json!({"max_results": bad})).is_err(), "{bad}");
        }
        for bad in [json!(1.000_000_01), json!(-0.01), json!(70), json!("x")] {
            assert!(read_search(json!({"min_similarity_score": bad})).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_need_a_name_and_a_scope() {
        let read_key = |body: Value| read::<KeyForm>(&Bytes::from(body.to_string()));
        let form = read_key(json!({"name": "n", "scopes": ["search", "admin", "search"]}));
        assert_eq!(form.ok().unwrap().scopes, [Scope::Search, Scope::Admin]);
        for bad in [
            json!({"name": "", "scopes": ["search"]}),
            json!({"name": "a\nb", "scopes": ["search"]}),
            json!({"name": "n", "scopes": []}),
            json!({"name": "n", "scopes": ["root"]}),
            json!({"name": "n"}),
        ] {
            assert!(read_key(bad.clone()).is_err(), "{bad}");
        }
    }
}
