//! The query of a URL: `name=value` pairs, percent-decoded.

use crate::web::error::ApiError;

/// Most pairs of one query; our longest form has five fields.
const PAIRS_MAX: usize = 64;

/// Decoded pairs, in the order of the URL.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes the part of a URL after `?`.
    pub fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let mut decoded = Vec::new();
        for pair in pairs {
            if decoded.len() == PAIRS_MAX {
                return Err(ApiError::invalid("query", "at most 64 fields"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let field = percent_decode(name).zip(percent_decode(value));
            decoded.push(field.ok_or_else(|| {
                ApiError::invalid("query", "expected percent-encoded UTF-8 text")
            })?);
        }
        Ok(Self(decoded))
    }

    /// All pairs; of two with one name the first counts.
    pub fn pairs(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The text of a field.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The text of a field that must be there.
    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.text(name).ok_or_else(|| ApiError::invalid(name, "required"))
    }

    /// A whole number; absent or empty means `default`.
    pub fn number(&self, name: &str, default: usize) -> Result<usize, ApiError> {
        match self.text(name) {
            None | Some("") => Ok(default),
            Some(text) => {
                text.parse().map_err(|_| ApiError::invalid(name, "expected a whole number from 0"))
            }
        }
    }

    /// A whole number that need not fit into memory; absent or empty means none.
    pub fn count(&self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.text(name) {
            None | Some("") => Ok(None),
            Some(text) => {
                let number = text.parse().map(Some);
                number.map_err(|_| ApiError::invalid(name, "expected a whole number from 0"))
            }
        }
    }

    /// `true` or `false`; absent or empty means false.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("" | "false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(ApiError::invalid(name, "expected true or false")),
        }
    }
}

/// `None` for a broken escape or text that is not UTF-8. A plus sign is a space, as forms send it.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let query = Query::parse(Some("name=a%2Fb+c&empty=&flag&name=second&z=%C3%A9")).unwrap();
        assert_eq!(query.text("name"), Some("a/b c"));
        assert_eq!(query.text("empty"), Some(""));
        assert_eq!(query.text("flag"), Some(""));
        assert_eq!(query.text("z"), Some("é"));
        assert_eq!(query.text("absent"), None);
        assert!(query.required("absent").is_err());
        assert!(Query::parse(None).unwrap().0.is_empty());
        for bad in ["a=%", "a=%4", "a=%zz", "%ff=1"] {
            assert!(Query::parse(Some(bad)).is_err(), "{bad}");
        }
        assert!(Query::parse(Some(&"a&".repeat(65))).is_err());
    }

    #[test]
    fn numbers_and_flags() {
        let query = Query::parse(Some("n=7&bad=-1&on=true&off=false&huge=99999999999999999999"));
        let query = query.unwrap();
        assert_eq!(query.number("n", 20).unwrap(), 7);
        assert_eq!(query.number("absent", 20).unwrap(), 20);
        assert!(query.number("bad", 20).is_err());
        assert!(query.number("huge", 20).is_err());
        assert!(query.flag("on").unwrap());
        assert!(!query.flag("off").unwrap());
        assert!(query.flag("n").is_err());
    }

    proptest! {
        #[test]
        fn no_query_panics(text: String) {
            let _ = Query::parse(Some(&text));
        }
    }
}
