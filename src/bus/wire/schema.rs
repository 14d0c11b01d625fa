//! Test support: checks a value against the part of JSON Schema that the published documents use.

use serde_json::Value;

use crate::clock::UtcTime;

/// What does not hold. A keyword that is not understood is a complaint, so that no document can
/// outgrow the test.
///
/// # Panics
///
/// When the schema is none.
pub fn complaints(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().unwrap() {
        let ok = match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" => true,
            "type" => match rule {
                Value::Array(types) => types.iter().any(|one| is_of_type(value, one)),
                one => is_of_type(value, one),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|v| v >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|v| v <= rule.as_f64().unwrap()),
            "format" => value.as_str().is_none_or(|text| {
                UtcTime::try_from(text.to_string()).is_ok_and(|time| time.to_string() == text)
            }),
            "pattern" => {
                assert_eq!(rule, "^[0-7][0-9A-HJKMNP-TV-Z]{25}$", "only the ULID's is known");
                value.as_str().is_none_or(|text| text.parse::<ulid::Ulid>().is_ok())
            }
            "required" => value.as_object().is_none_or(|object| {
                rule.as_array()
                    .unwrap()
                    .iter()
                    .all(|key| object.contains_key(key.as_str().unwrap()))
            }),
            "properties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(key) {
                        found.extend(complaints(rule, inner, &format!("{at}.{key}")));
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = |key: &String| {
                    schema.get("properties").is_some_and(|all| all.get(key).is_some())
                };
                let extra: Vec<_> = value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(key, _)| !known(key))
                    .collect();
                match rule {
                    Value::Bool(false) => extra.is_empty(),
                    rule => extra.iter().all(|(_, inner)| complaints(rule, inner, at).is_empty()),
                }
            }
            "items" => value
                .as_array()
                .into_iter()
                .flatten()
                .all(|item| complaints(rule, item, at).is_empty()),
            _ => false,
        };
        if !ok {
            found.push(format!("{at}: `{keyword}` {rule} does not hold for {value}"));
        }
    }
    found
}

fn is_of_type(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}
