//! Sealing of records: what the file shows to someone who has it, but not the key.
//!
//! Three keys are derived from the master key, one for each purpose, so that no use weakens
//! another:
//!
//! * **Sealing**: XChaCha20-Poly1305. The nonce is random; with 192 bits, records can be sealed for
//!   ever without a counter that a restored backup would set back. The associated data name the
//!   place of a record (table, record id, schema version), so a sealed record that is moved to
//!   another person's place, or read by a schema it was not written for, does not open.
//! * **Record ids**: HMAC-SHA-256, cut to 128 bits, of what identifies a record. The database sorts
//!   and finds by it, but it tells nothing about names without the key.
//! * **Backups**: HMAC-SHA-256 over the digest of the whole, see `archive`.
//!
//! What it does not hide: how many records of each kind there are, how large they are, which people
//! are in one collection, and that the file is an older copy of itself. Somebody who can replace
//! the file by yesterday's has yesterday's gallery.

use std::fmt;

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of the master key.
pub const MASTER_KEY_BYTES: usize = 32;
/// Bytes of a record id.
pub const RECORD_ID_BYTES: usize = 16;
/// Bytes of the check value that tells one master key from another.
pub const KEY_CHECK_BYTES: usize = 8;
/// Bytes by which a sealed record is longer than what is in it: nonce and tag.
pub const SEALING_OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// The key that everything else is derived from; wiped when dropped, never printed.
pub struct MasterKey(Zeroizing<[u8; MASTER_KEY_BYTES]>);

impl MasterKey {
    /// Takes over 32 bytes from a uniform random source.
    pub fn new(bytes: Zeroizing<[u8; MASTER_KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    /// A key from the operating system's random source.
    pub fn random() -> Result<Self, VaultError> {
        let mut bytes = Zeroizing::new([0; MASTER_KEY_BYTES]);
        fill_random(bytes.as_mut())?;
        Ok(Self(bytes))
    }

    /// The bytes, for writing the key file.
    pub fn bytes(&self) -> &[u8; MASTER_KEY_BYTES] {
        &self.0
    }

    fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        hmac(self.bytes(), &[b"facelatch store", purpose.as_bytes()])
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("MasterKey")
    }
}

/// Identifies a record without telling whose it is.
pub type RecordId = [u8; RECORD_ID_BYTES];

/// Where a sealed record belongs. It opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Name of the table.
    pub table: &'a str,
    /// The record's key in the table.
    pub id: &'a [u8],
    /// Schema version of what is sealed.
    pub version: u32,
}

impl Place<'_> {
    fn associated_data(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(4 + 1 + self.table.len() + self.id.len());
        data.extend_from_slice(&self.version.to_le_bytes());
        // A table's name holds no zero byte, so where it ends is never in doubt.
        data.extend_from_slice(self.table.as_bytes());
        data.push(0);
        data.extend_from_slice(self.id);
        data
    }
}

/// Why a record cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VaultError {
    /// The operating system gave no random bytes.
    #[error("the operating system's random source failed: {0}")]
    Random(String),
    /// Longer than the cipher can take (256 GiB).
    #[error("the record is too long to be sealed")]
    TooLong,
    /// Not sealed by this key for this place, or changed since.
    #[error("it was changed or moved since it was sealed")]
    Unauthentic,
}

/// Seals and opens records with the keys of one store.
pub struct Vault {
    cipher: XChaCha20Poly1305,
    record_ids: Zeroizing<[u8; 32]>,
    backups: Zeroizing<[u8; 32]>,
    key_check: [u8; KEY_CHECK_BYTES],
}

impl Vault {
    /// Derives the keys of each purpose.
    pub fn new(master: &MasterKey) -> Self {
        let sealing = master.derive("seal records");
        let mut key_check = [0; KEY_CHECK_BYTES];
        key_check.copy_from_slice(&master.derive("check the key")[..KEY_CHECK_BYTES]);
        Self {
            cipher: XChaCha20Poly1305::new((&*sealing).into()),
            record_ids: master.derive("record ids"),
            backups: master.derive("sign backups"),
            key_check,
        }
    }

    /// Tells one master key from another without telling the key.
    pub fn key_check(&self) -> [u8; KEY_CHECK_BYTES] {
        self.key_check
    }

    /// The id of the record that `parts` name; `kind` keeps the kinds of records apart.
    pub fn record_id(&self, kind: &str, parts: &[&str]) -> RecordId {
        let mut fields = vec![kind.as_bytes()];
        fields.extend(parts.iter().map(|part| part.as_bytes()));
        let mac = hmac(&self.record_ids, &fields);
        let mut id = [0; RECORD_ID_BYTES];
        id.copy_from_slice(&mac[..RECORD_ID_BYTES]);
        id
    }

    /// Signs the digest of a backup: only who has the key can have made it. Records are sealed
    /// anyway; this keeps anyone from joining a backup together from the records of several, which
    /// would bring a revoked key back.
    pub fn sign_backup(&self, sha256: &[u8; 32]) -> [u8; 32] {
        *hmac(&self.backups, &[sha256])
    }

    /// Nonce and ciphertext; different at every call.
    pub fn seal(&self, place: &Place<'_>, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let payload = Payload { msg: plain, aad: &place.associated_data() };
        let ciphertext =
            self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| VaultError::TooLong)?;
        let mut sealed = Vec::with_capacity(NONCE_BYTES + ciphertext.len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// What was sealed for this place; wiped when dropped.
    pub fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let (nonce, ciphertext) =
            sealed.split_first_chunk::<NONCE_BYTES>().ok_or(VaultError::Unauthentic)?;
        let payload = Payload { msg: ciphertext, aad: &place.associated_data() };
        self.cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| VaultError::Unauthentic)
    }
}

/// HMAC-SHA-256 over fields that cannot run into each other.
fn hmac(key: &[u8; 32], fields: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for field in fields {
        mac.update(&(field.len() as u64).to_le_bytes());
        mac.update(field);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn fill_random(bytes: &mut [u8]) -> Result<(), VaultError> {
    getrandom::fill(bytes).map_err(|error| VaultError::Random(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place<'static> = Place { table: "persons", id: b"0123", version: 1 };

    fn vault(byte: u8) -> Vault {
        Vault::new(&MasterKey::new(Zeroizing::new([byte; MASTER_KEY_BYTES])))
    }

    #[test]
    fn a_record_opens_only_in_its_own_place() {
        let sealed = vault(1).seal(&PLACE, b"Ada").unwrap();
        assert_eq!(sealed.len(), 3 + SEALING_OVERHEAD_BYTES);
        assert_eq!(**vault(1).open(&PLACE, &sealed).unwrap(), *b"Ada");
        let elsewhere = [
            Place { table: "person", id: b"s0123", ..PLACE },
            Place { table: "images", ..PLACE },
            Place { id: b"0124", ..PLACE },
            Place { version: 2, ..PLACE },
        ];
        for place in elsewhere {
            assert_eq!(vault(1).open(&place, &sealed), Err(VaultError::Unauthentic), "{place:?}");
        }
        assert_eq!(vault(2).open(&PLACE, &sealed), Err(VaultError::Unauthentic));
    }

    #[test]
    fn the_same_record_never_looks_the_same() {
        let vault = vault(1);
        assert_ne!(vault.seal(&PLACE, b"Ada").unwrap(), vault.seal(&PLACE, b"Ada").unwrap());
    }

    #[test]
    fn record_ids_depend_on_key_kind_and_every_part() {
        let id = vault(1).record_id("person", &["staff", "7"]);
        assert_eq!(vault(1).record_id("person", &["staff", "7"]), id);
        for other in [
            vault(2).record_id("person", &["staff", "7"]),
            vault(1).record_id("collection", &["staff", "7"]),
            vault(1).record_id("person", &["staff7", ""]),
            vault(1).record_id("person", &["staff", "8"]),
            vault(1).record_id("person", &["staff"]),
        ] {
            assert_ne!(other, id);
        }
    }

    /// The derivation is part of the file format: a change of it would lock every store.
    #[test]
    fn the_derivation_stays_what_it_was() {
        let vault = vault(7);
        assert_eq!(vault.key_check(), 0xef37_ec3b_afc9_c4fb_u64.to_be_bytes());
        let id = 0x0c26_c9a5_a63a_c8e3_197b_50b2_c9ec_4a33_u128.to_be_bytes();
        assert_eq!(vault.record_id("person", &["staff", "7"]), id);
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", MasterKey::random().unwrap()), "MasterKey");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            prop_assert_eq!(vault(1).open(&PLACE, &bytes), Err(VaultError::Unauthentic));
        }

        #[test]
        fn one_changed_bit_is_noticed(plain: Vec<u8>, at: prop::sample::Index, bit in 0_u32..8) {
            let mut sealed = vault(1).seal(&PLACE, &plain).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1_u8 << bit;
            prop_assert_eq!(vault(1).open(&PLACE, &sealed), Err(VaultError::Unauthentic));
        }
    }
}
