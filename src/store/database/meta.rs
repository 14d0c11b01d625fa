//! The open part of the database: version, key check, counters.

use redb::{ReadableTable, Table, WriteTransaction};

use crate::store::Setting;
use crate::store::StoreError;
use crate::store::database::refused;
use crate::store::schema::{
    CANARY, META, META_CANARY, META_COMMITS, META_KEY_CHECK, META_MIGRATED_FROM, META_PROGRAM,
    META_SCRUB_OWED, META_SETTING_DOOR, META_SETTING_OUTBOX, META_SETTING_PRUNED, META_VERSION,
};
use crate::store::vault::{Place, Vault};

/// Version of this program.
pub const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The table, open for writing.
pub type MetaTable<'tx> = Table<'tx, &'static str, &'static [u8]>;

/// The table, open for reading.
pub trait ReadMeta: ReadableTable<&'static str, &'static [u8]> {}

impl<T: ReadableTable<&'static str, &'static [u8]>> ReadMeta for T {}

/// Schema version of the file.
pub fn version(meta: &impl ReadMeta) -> Result<u32, StoreError> {
    let bytes = get(meta, META_VERSION)?.ok_or_else(|| missing(META_VERSION))?;
    let bytes = bytes.as_slice().try_into().map_err(|_| malformed(META_VERSION))?;
    Ok(u32::from_le_bytes(bytes))
}

/// Version of the program that last opened the file; empty before programs wrote it down.
pub fn program(meta: &impl ReadMeta) -> Result<String, StoreError> {
    let bytes = get(meta, META_PROGRAM)?.unwrap_or_default();
    String::from_utf8(bytes).map_err(|_| malformed(META_PROGRAM))
}

/// Writes that this program has the file.
pub fn set_program(meta: &mut MetaTable<'_>) -> Result<(), StoreError> {
    meta.insert(META_PROGRAM, OWN_VERSION.as_bytes()).map_err(refused)?;
    Ok(())
}

/// Schema version before the last migration.
pub fn migrated_from(meta: &impl ReadMeta) -> Result<Option<u32>, StoreError> {
    let bytes = get(meta, META_MIGRATED_FROM)?;
    let version = bytes.map(|bytes| bytes.as_slice().try_into().map(u32::from_le_bytes));
    version.transpose().map_err(|_| malformed(META_MIGRATED_FROM))
}

/// Notes a migration, in its transaction.
pub fn set_migrated_from(meta: &mut MetaTable<'_>, version: u32) -> Result<(), StoreError> {
    meta.insert(META_MIGRATED_FROM, version.to_le_bytes().as_slice()).map_err(refused)?;
    Ok(())
}

/// The refusal of a file of a later version, which names both programs.
pub fn too_new(found: u32, supported: u32, program: String) -> StoreError {
    let written_by = if program.is_empty() { "of a later version".to_string() } else { program };
    StoreError::TooNew { found, supported, written_by }
}

/// Writes what tells the version and the right key. Part of the first transaction, and of every
/// migration.
pub fn write_key_check(
    meta: &mut MetaTable<'_>,
    vault: &Vault,
    version: u32,
) -> Result<(), StoreError> {
    let canary = vault
        .seal(&canary_place(version), CANARY)
        .map_err(|error| StoreError::Io { reason: error.to_string() })?;
    meta.insert(META_VERSION, version.to_le_bytes().as_slice()).map_err(refused)?;
    meta.insert(META_KEY_CHECK, vault.key_check().as_slice()).map_err(refused)?;
    meta.insert(META_CANARY, canary.as_slice()).map_err(refused)?;
    Ok(())
}

/// Whether the store was sealed with this key.
///
/// Two witnesses: the check value and the canary. A wrong key fails both; if only one fails, the
/// key is right and the witness is damaged.
pub fn is_right_key(meta: &impl ReadMeta, vault: &Vault, version: u32) -> Result<bool, StoreError> {
    let check = get(meta, META_KEY_CHECK)?.is_some_and(|check| check == vault.key_check());
    let canary = get(meta, META_CANARY)?
        .and_then(|sealed| vault.open(&canary_place(version), &sealed).ok())
        .is_some_and(|canary| canary.as_slice() == CANARY);
    match (check, canary) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (true, false) => Err(malformed(META_CANARY)),
        (false, true) => Err(malformed(META_KEY_CHECK)),
    }
}

/// Counts this transaction and answers its number.
pub fn count_commit(tx: &WriteTransaction) -> Result<u64, StoreError> {
    let mut meta = tx.open_table(META).map_err(refused)?;
    let number = counter(&meta, META_COMMITS)? + 1;
    set_counter(&mut meta, META_COMMITS, number)?;
    Ok(number)
}

/// A counter; 0 until it is set.
pub fn counter(meta: &impl ReadMeta, name: &'static str) -> Result<u64, StoreError> {
    match get(meta, name)? {
        Some(bytes) => {
            Ok(u64::from_le_bytes(bytes.as_slice().try_into().map_err(|_| malformed(name))?))
        }
        None => Ok(0),
    }
}

/// Sets a counter.
pub fn set_counter(
    meta: &mut MetaTable<'_>,
    name: &'static str,
    value: u64,
) -> Result<(), StoreError> {
    meta.insert(name, value.to_le_bytes().as_slice()).map_err(refused)?;
    Ok(())
}

/// One of the device's own settings.
pub fn setting(meta: &impl ReadMeta, setting: Setting) -> Result<Option<Vec<u8>>, StoreError> {
    get(meta, setting_name(setting))
}

/// Sets one of the device's own settings; leaves nothing behind that is worth a scrub.
pub fn put_setting(
    tx: &WriteTransaction,
    setting: Setting,
    value: &[u8],
) -> Result<bool, StoreError> {
    let mut meta = tx.open_table(META).map_err(refused)?;
    meta.insert(setting_name(setting), value).map_err(refused)?;
    Ok(false)
}

fn setting_name(setting: Setting) -> &'static str {
    match setting {
        Setting::Door => META_SETTING_DOOR,
        Setting::Outbox => META_SETTING_OUTBOX,
        Setting::Pruned => META_SETTING_PRUNED,
    }
}

/// Whether a deletion left something in the file.
pub fn scrub_owed(meta: &impl ReadMeta) -> Result<bool, StoreError> {
    Ok(get(meta, META_SCRUB_OWED)?.is_some())
}

/// Notes, in the transaction of a deletion, that it leaves something in the file.
pub fn owe_scrub(tx: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = tx.open_table(META).map_err(refused)?;
    meta.insert(META_SCRUB_OWED, [1].as_slice()).map_err(refused)?;
    Ok(())
}

fn canary_place(version: u32) -> Place<'static> {
    Place { table: "meta", id: META_CANARY.as_bytes(), version }
}

fn get(meta: &impl ReadMeta, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(meta.get(name).map_err(refused)?.map(|value| value.value().to_vec()))
}

fn missing(name: &str) -> StoreError {
    StoreError::Corrupt { reason: format!("the entry `{name}` is missing") }
}

fn malformed(name: &str) -> StoreError {
    StoreError::Corrupt { reason: format!("the entry `{name}` is not valid") }
}
