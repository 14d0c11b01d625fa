//! Bodies: one JSON object, read into a form, with complaints that name the field.
//!
//! `null` means absent and unknown fields are ignored on every endpoint. A complaint never repeats
//! the value that it is about: it may be a picture of a person.

use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::web::error::ApiError;
use crate::web::query::Query;

/// Some frameworks put this before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a form from a body that is required.
pub fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    form(object(body)?)
}

/// Reads a form from the body, with fields that are absent there taken from the query: clients
/// differ in whether they can send a body with `DELETE`.
pub fn read_or_query<T: DeserializeOwned>(body: &Bytes, query: &Query) -> Result<T, ApiError> {
    let empty = body.iter().all(u8::is_ascii_whitespace);
    let mut fields = if empty { Map::new() } else { object(body)? };
    for (name, value) in query.pairs() {
        fields.entry(name).or_insert_with(|| Value::String(value.clone()));
    }
    form(fields)
}

/// `serde_json` refuses nesting beyond 128 levels, so the walk below ends.
fn object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let value = serde_json::from_slice(text)
        .map_err(|error| ApiError::invalid("body", &format!("not valid JSON: {error}")))?;
    match without_nulls(value) {
        Value::Object(fields) => Ok(fields),
        _ => Err(ApiError::invalid("body", "expected one JSON object")),
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let present = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(present.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn form<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        complaint(path.trim_start_matches('.'), &error.inner().to_string())
    })
}

/// Turns serde's sentence into "field: what is wrong".
fn complaint(path: &str, sentence: &str) -> ApiError {
    let missing = sentence.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    if let Some(field) = missing {
        let field = if path.is_empty() { field.to_string() } else { format!("{path}.{field}") };
        return ApiError::invalid(&field, "required");
    }
    // "invalid type: string "…", expected a boolean": what was sent is not repeated.
    let detail = match sentence.rsplit_once(", expected ") {
        Some((_, "f64")) => "expected a number".to_string(),
        Some((_, "u64")) => "expected a whole number".to_string(),
        Some((_, expected)) => format!("expected {expected}"),
        None => sentence.to_string(),
    };
    ApiError::invalid(if path.is_empty() { "body" } else { path }, &detail)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Form {
        name: String,
        #[serde(default)]
        flag: bool,
        #[serde(default)]
        items: Vec<Item>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Item {
        id: String,
    }

    fn message(body: &str) -> String {
        let error = read::<Form>(&Bytes::copy_from_slice(body.as_bytes())).unwrap_err();
        error.body().message.into_owned()
    }

    #[test]
    fn null_is_absent_and_unknown_fields_are_ignored() {
        let body = "\u{feff}{\"name\":\"x\",\"flag\":null,\"items\":null,\"more\":{\"a\":[null]}}";
        let form: Form = read(&Bytes::from(body)).unwrap();
        assert_eq!(form, Form { name: "x".into(), flag: false, items: vec![] });
    }

    #[test]
    fn complaints_name_the_field_and_never_the_value() {
        let table = [
            ("{}", "Invalid request: name: required"),
            (r#"{"name":null}"#, "Invalid request: name: required"),
            (r#"{"name":5}"#, "Invalid request: name: expected a string"),
            (r#"{"name":"x","flag":"secret"}"#, "Invalid request: flag: expected a boolean"),
            (r#"{"name":"x","items":[{"id":"a"},{}]}"#, "Invalid request: items[1].id: required"),
            ("[]", "Invalid request: body: expected one JSON object"),
            (r#""text""#, "Invalid request: body: expected one JSON object"),
        ];
        for (body, expected) in table {
            assert_eq!(message(body), expected, "{body}");
        }
        assert!(message("").starts_with("Invalid request: body: not valid JSON"));
        assert!(message(&"[".repeat(100_000)).contains("recursion limit"));
        assert!(message("{\"name\":\"\u{0}\"}").contains("control character"));
    }

    #[test]
    fn a_query_fills_what_the_body_leaves_out() {
        let query = Query::parse(Some("name=a%20b&flag=true")).unwrap();
        let error = read_or_query::<Form>(&Bytes::new(), &query).unwrap_err();
        assert_eq!(error.body().message, "Invalid request: flag: expected a boolean");
        let query = Query::parse(Some("name=a%20b")).unwrap();
        let form: Form = read_or_query(&Bytes::from_static(b" \n"), &query).unwrap();
        assert_eq!(form.name, "a b");
        let form: Form = read_or_query(&Bytes::from_static(b"{\"name\":\"c\"}"), &query).unwrap();
        assert_eq!(form.name, "c");
    }
}
