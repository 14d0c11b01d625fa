//! API keys: how they are made, recognised and hashed. Nothing here keeps a key.
//!
//! A key is `flk_` and 32 random bytes in URL-safe base64. Its id, for lists, logs and revocation,
//! is the first 8 hex digits of its SHA-256; the store keeps the whole SHA-256. The key has 256
//! random bits, so a slow hash would add nothing.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::Digest;
use sha2::Sha256;
use subtle::ConditionallySelectable;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::store::KeyRecord;
use crate::store::Scope;

/// What every key begins with, so that people and secret scanners recognise it.
pub const KEY_PREFIX: &str = "flk_";
/// Random bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Hex digits of a key's public id.
const ID_DIGITS: usize = 8;

/// A new key from the operating system's random numbers.
pub(crate) fn generate() -> Result<String, getrandom::Error> {
    let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
    getrandom::fill(&mut *bytes)?;
    Ok(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(*bytes)))
}

/// SHA-256 of a key as it is presented.
pub(crate) fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The public id of a key with this hash.
pub(crate) fn public_id(hash: &[u8; 32]) -> String {
    let mut id = String::with_capacity(ID_DIGITS);
    for byte in &hash[..ID_DIGITS / 2] {
        write!(id, "{byte:02x}").expect("a String takes everything");
    }
    id
}

/// The record that a presented key belongs to. Takes the same time whichever key it is, or none:
/// every record is compared in full, and the match is selected without a branch.
pub(crate) fn find<'a>(records: &'a [KeyRecord], presented: &str) -> Option<&'a KeyRecord> {
    let presented = hash(presented);
    let mut found = u32::MAX;
    for (index, record) in records.iter().enumerate() {
        let equal = record.sha256.ct_eq(&presented);
        found.conditional_assign(&(index as u32), equal);
    }
    records.get(found as usize)
}

/// Whether revoking a key would leave nobody who can administer.
pub(crate) fn is_last_admin(records: &[KeyRecord], id: &str) -> bool {
    let is_admin = |record: &&KeyRecord| record.scopes.contains(&Scope::Admin);
    let mut admins = records.iter().filter(is_admin);
    admins.next().is_some_and(|first| first.id == id) && admins.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UtcTime;

    fn record(key: &str, scopes: &[Scope]) -> KeyRecord {
        let sha256 = hash(key);
        KeyRecord {
            id: public_id(&sha256),
            name: key.to_string(),
            sha256,
            scopes: scopes.to_vec(),
            created: UtcTime::from_millis(0),
        }
    }

    #[test]
    fn keys_are_random_and_look_like_keys() {
        let (first, second) = (generate().unwrap(), generate().unwrap());
        assert_ne!(first, second);
        for key in [first, second] {
            let random = key.strip_prefix(KEY_PREFIX).unwrap();
            assert_eq!(random.len(), 43);
            assert_eq!(URL_SAFE_NO_PAD.decode(random).unwrap().len(), KEY_BYTES);
        }
    }

    #[test]
    fn hash_and_id_are_those_of_sha256sum() {
        // printf abc | sha256sum
        assert_eq!(public_id(&hash("abc")), "ba7816bf");
        assert_eq!(hash("abc")[28..], [0xf2, 0x00, 0x15, 0xad]);
    }

    #[test]
    fn a_key_is_found_only_by_its_exact_text() {
        let records = [record("one", &[]), record("two", &[]), record("three", &[])];
        for name in ["one", "two", "three"] {
            assert_eq!(find(&records, name).unwrap().name, name);
        }
        for wrong in ["", "One", "one ", "four"] {
            assert_eq!(find(&records, wrong), None, "{wrong:?}");
        }
        assert_eq!(find(&[], "one"), None);
    }

    #[test]
    fn the_last_administrator_is_recognised() {
        let (admin, both, search) = (
            record("admin", &[Scope::Admin]),
            record("both", &[Scope::Search, Scope::Admin]),
            record("search", &[Scope::Search]),
        );
        let records = [search.clone(), admin.clone(), both.clone()];
        assert!(records.iter().all(|record| !is_last_admin(&records, &record.id)));
        let records = [search.clone(), both.clone()];
        assert!(is_last_admin(&records, &both.id));
        assert!(!is_last_admin(&records, &search.id));
        assert!(!is_last_admin(&records, "unknown"));
    }
}
