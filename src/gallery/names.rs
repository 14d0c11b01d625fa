//! Names of collections and people, checked once, in the only constructor.

use std::{fmt, sync::Arc};

use thiserror::Error;

/// Longest collection name, in bytes.
pub const COLLECTION_NAME_BYTES_MAX: usize = 255;
/// Longest person id, in bytes.
pub const PERSON_ID_BYTES_MAX: usize = 255;

/// The name is empty, too long, or holds something other than ASCII letters, digits, `_-.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("collection names hold 1 to 255 ASCII letters, digits, underscores, hyphens and periods")]
pub struct CollectionNameError;

/// The id is empty, too long, or holds control characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a person_id holds 1 to 255 bytes without control characters")]
pub struct PersonIdError;

/// A collection's name: case-sensitive, never used as a file path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(Arc<str>);

impl CollectionName {
    /// Checks the syntax.
    pub fn new(name: &str) -> Result<Self, CollectionNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > COLLECTION_NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(CollectionNameError);
        }
        Ok(Self(name.into()))
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A person's id within a collection: case-sensitive, any text without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId(Arc<str>);

impl PersonId {
    /// Checks length and characters.
    pub fn new(id: &str) -> Result<Self, PersonIdError> {
        if id.is_empty() || id.len() > PERSON_ID_BYTES_MAX || id.chars().any(char::is_control) {
            return Err(PersonIdError);
        }
        Ok(Self(id.into()))
    }

    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PersonId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_names_keep_to_their_alphabet() {
        for good in ["a", "Staff_2.0-x", &"x".repeat(255)] {
            assert!(CollectionName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "é", "a/b", "a\0", &"x".repeat(256)] {
            assert!(CollectionName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn person_ids_are_free_text_without_control_characters() {
        assert!(PersonId::new("Zoë / 7").is_ok());
        for bad in ["", "a\n", &"x".repeat(256)] {
            assert!(PersonId::new(bad).is_err(), "{bad:?}");
        }
    }
}
