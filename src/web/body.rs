//! Bodies: one JSON object, read into a form, with complaints that name the field.
//!
//! `null` means absent and unknown fields are ignored on every endpoint. A complaint never repeats
//! the value that it is about: it may be a picture of a person.

use std::{cell::Cell, fmt};

use hyper::body::Bytes;
use serde::Deserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::web::error::ApiError;
use crate::web::query::Query;

/// Some frameworks put this before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Most values of one body, those of unknown fields included. A value of two bytes takes dozens in
/// memory, so the size of the body does not bound it. A thousand people with two hundred entries of
/// metadata each have fewer.
const VALUES_MAX: usize = 250_000;

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

fn object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let values_left = Cell::new(VALUES_MAX);
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = Lean { values_left: &values_left }.deserialize(&mut json);
    let value = value.and_then(|value| json.end().map(|()| value)).map_err(|error| {
        let detail = match values_left.get() {
            0 => format!("at most {VALUES_MAX} values"),
            _ => format!("not valid JSON: {error}"),
        };
        ApiError::invalid("body", &detail)
    })?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(ApiError::invalid("body", "expected one JSON object")),
    }
}

/// Reads a value without the fields that are null, and not more values than there is memory for.
/// `serde_json` refuses nesting beyond 128 levels.
#[derive(Clone, Copy)]
struct Lean<'a> {
    values_left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Lean<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.values_left.set(self.values_left.get().saturating_sub(1));
        if self.values_left.get() == 0 {
            return Err(D::Error::custom("too many values"));
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Lean<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            match entries.next_value_seed(self)? {
                // Of two fields with one name the last counts, whatever it holds.
                Value::Null => fields.remove(&name),
                value => fields.insert(name, value),
            };
        }
        Ok(Value::Object(fields))
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
            (r"{}", "Invalid request: name: required"),
            (r#"{"name":null}"#, "Invalid request: name: required"),
            (r#"{"name":5}"#, "Invalid request: name: expected a string"),
            (r#"{"name":"x","flag":"secret"}"#, "Invalid request: flag: expected a boolean"),
            (r#"{"name":"x","items":[{"id":"a"},{}]}"#, "Invalid request: items[1].id: required"),
            (r"[]", "Invalid request: body: expected one JSON object"),
            (r#""text""#, "Invalid request: body: expected one JSON object"),
        ];
        for (body, expected) in table {
            assert_eq!(message(body), expected, "{body}");
        }
        assert!(message("").starts_with("Invalid request: body: not valid JSON"));
        assert!(message(&"[".repeat(100_000)).contains("recursion limit"));
        assert!(message("{\"name\":\"\u{0}\"}").contains("control character"));
    }

    /// A body of 16 MiB with one field of millions of zeros, which no endpoint knows, took 300 MB.
    #[test]
    fn a_body_of_a_million_values_is_refused_before_it_is_in_memory() {
        let zeros = |count: usize| format!("{{\"name\":\"x\",\"more\":[0{}]}}", ",0".repeat(count));
        let refused = message(&zeros(VALUES_MAX));
        assert_eq!(refused, "Invalid request: body: at most 250000 values");
        read::<Form>(&Bytes::from(zeros(VALUES_MAX - 10))).unwrap();
    }

    #[test]
    fn of_two_fields_with_one_name_the_last_counts() {
        assert_eq!(message(r#"{"name":"x","name":null}"#), "Invalid request: name: required");
        let form: Form = read(&Bytes::from_static(br#"{"name":null,"name":"y"}"#)).unwrap();
        assert_eq!(form.name, "y");
        assert!(message(r#"{"name":"x"} {}"#).contains("trailing characters"));
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
