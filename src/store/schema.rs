//! The form of tables and records, their version, and the way from older versions.
//!
//! Every table maps bytes to bytes. `meta` is open: it holds what must be read before the key is
//! known to be right, and counters. The values of all other tables are sealed; their keys are
//! record ids that tell nothing (see `vault`), or sequence numbers.
//!
//! | table | key | sealed value |
//! |---|---|---|
//! | `collections` | id of the collection | its name |
//! | `persons` | id of the collection, id of the person | the person, without picture |
//! | `images` | as in `persons` | the picture file |
//! | `keys` | id of the API key | its record |
//! | `events` | sequence number, big-endian | the event |
//! | `audit` | sequence number, big-endian | the entry |
//!
//! The ids of a collection's people begin with the collection's id, so a collection is one range.
//!
//! A record begins with a byte that tells its form: 1, or 2 for a person whose open eyes are known,
//! which has one number more at its end; every other person stays in form 1. Numbers are
//! little-endian, text is its length in bytes (`u32`) and UTF-8. Events and entries are JSON, since their form
//! is a published contract that grows by optional fields. Decoding checks every length against what
//! is there before it allocates, and refuses what is left over: whatever the bytes, it answers and
//! never panics.

use std::collections::BTreeMap;

use redb::TableDefinition;
use thiserror::Error;

use crate::access::event::Event;
use crate::clock::UtcTime;
use crate::face::eyes::EyeRatio;
use crate::face::template::Template;
use crate::gallery::names::{CollectionName, PersonId};
use crate::gallery::person::{
    EmbeddingModelId, FaceStorageType, Person, REFERENCES_PER_PERSON_MAX, Reference,
};
use crate::store::vault::{RECORD_ID_BYTES, RecordId};
use crate::store::{AuditEntry, KeyRecord, Scope};

/// Version that this program writes.
pub const SCHEMA_VERSION: u32 = 3;

/// The steps from every older version to [`SCHEMA_VERSION`], in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        // Version 2 adds the second form of a person, which version 1 takes for damage: a program
        // that knows only version 1 shall say that it is too old instead. No record changes.
        from: 1,
        rewrite: |_, record| Ok(record.to_vec()),
    },
    Migration {
        // Version 3 adds the audit log, which a program that knows only version 2 would lose with
        // its next scrub. No record changes.
        from: 2,
        rewrite: |_, record| Ok(record.to_vec()),
    },
];

/// A table of bytes.
pub type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// What is not sealed: version, key check, counters.
pub const META: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new(META_NAME);
/// Name of that table.
pub const META_NAME: &str = "meta";
/// Collections.
pub const COLLECTIONS: SealedTable = SealedTable("collections");
/// People.
pub const PERSONS: SealedTable = SealedTable("persons");
/// Pictures.
pub const IMAGES: SealedTable = SealedTable("images");
/// API keys.
pub const KEYS: SealedTable = SealedTable("keys");
/// The event log.
pub const EVENTS: SealedTable = SealedTable("events");
/// The audit log.
pub const AUDIT: SealedTable = SealedTable("audit");
/// All tables with sealed values.
pub const SEALED_TABLES: [SealedTable; 6] = [COLLECTIONS, PERSONS, IMAGES, KEYS, EVENTS, AUDIT];

/// `meta`: version of everything else, `u32`.
pub const META_VERSION: &str = "schema_version";
/// `meta`: tells whether a key is the right one without opening anything.
pub const META_KEY_CHECK: &str = "key_check";
/// `meta`: a sealed text that is known beforehand; tells a wrong key from a damaged file.
pub const META_CANARY: &str = "canary";
/// `meta`: number of durable changes, `u64`.
pub const META_COMMITS: &str = "commits";
/// `meta`: present while a scrub is owed.
pub const META_SCRUB_OWED: &str = "scrub_owed";
/// `meta`: sequence number that was given last, `u64`.
pub const META_EVENT_NEWEST: &str = "event_newest";
/// `meta`: events that were dropped, `u64`.
pub const META_EVENTS_DROPPED: &str = "events_dropped";
/// `meta`: number of the newest entry of the audit log, `u64`.
pub const META_AUDIT_NEWEST: &str = "audit_newest";
/// `meta`: entries of the audit log that were dropped, `u64`.
pub const META_AUDIT_DROPPED: &str = "audit_dropped";
/// `meta`: version of the program that last opened the file, text.
pub const META_PROGRAM: &str = "program";
/// `meta`: schema version before the last migration, `u32`; absent if there was none.
pub const META_MIGRATED_FROM: &str = "migrated_from";
/// Mode of the door, and whether faces open it.
pub const META_SETTING_DOOR: &str = "setting_door";
/// How far the broker has acknowledged.
pub const META_SETTING_OUTBOX: &str = "setting_outbox";
/// When retention was last applied.
pub const META_SETTING_PRUNED: &str = "setting_pruned";

/// What the canary says.
pub const CANARY: &[u8] = b"facelatch store";

const FORM: u8 = 1;
/// Form 1 of a person, followed by the ratio of the open eyes as `f32`.
const FORM_WITH_EYES: u8 = 2;
/// Bytes of a person's key: the collection's id and the person's.
pub const PERSON_KEY_BYTES: usize = 2 * RECORD_ID_BYTES;

/// A table whose values are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedTable(&'static str);

impl SealedTable {
    /// Its name, which is part of what every value in it is sealed with.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// For opening it in a transaction.
    pub const fn definition(self) -> Table {
        TableDefinition::new(self.0)
    }
}

/// One step of a migration: how each record of version `from` becomes one of `from + 1`.
///
/// A step runs in one transaction that also writes the new version, so a power cut leaves the old
/// version or the new one. Keys stay what they are.
#[derive(Clone, Copy)]
pub struct Migration {
    /// The older version.
    pub from: u32,
    /// Makes a new plain record of an old one.
    pub rewrite: fn(SealedTable, &[u8]) -> Result<Vec<u8>, RecordError>,
}

/// Why bytes are not a record, or a value cannot become one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Cut short.
    #[error("it ends too early")]
    Truncated,
    /// Something follows the end.
    #[error("{0} bytes are left over")]
    TrailingBytes(usize),
    /// A form of a later version, or no record at all.
    #[error("it has the unknown form {0}")]
    UnknownForm(u8),
    /// A field holds what it must not hold.
    #[error("the field `{field}` is not valid: {reason}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Key of a person and of the person's picture.
pub fn person_key(collection: &RecordId, person: &RecordId) -> [u8; PERSON_KEY_BYTES] {
    let mut key = [0; PERSON_KEY_BYTES];
    key[..RECORD_ID_BYTES].copy_from_slice(collection);
    key[RECORD_ID_BYTES..].copy_from_slice(person);
    key
}

/// First and last key that people of a collection can have.
pub fn collection_range(collection: &RecordId) -> ([u8; PERSON_KEY_BYTES], [u8; PERSON_KEY_BYTES]) {
    (
        person_key(collection, &[0; RECORD_ID_BYTES]),
        person_key(collection, &[u8::MAX; RECORD_ID_BYTES]),
    )
}

/// Key of an event; sorts by sequence number.
pub fn event_key(seq: u64) -> [u8; 8] {
    seq.to_be_bytes()
}

/// Sequence number of an event's key.
pub fn event_seq(key: &[u8]) -> Result<u64, RecordError> {
    let bytes = key.try_into().map_err(|_| RecordError::Truncated)?;
    Ok(u64::from_be_bytes(bytes))
}

/// A collection as a record.
pub fn encode_collection(name: &CollectionName) -> Result<Vec<u8>, RecordError> {
    let mut out = Writer::new();
    out.text("name", name.as_str())?;
    Ok(out.0)
}

/// The collection of a record.
pub fn decode_collection(bytes: &[u8]) -> Result<CollectionName, RecordError> {
    let mut input = Reader::new(bytes)?;
    let name = CollectionName::new(input.text("name")?).map_err(|error| invalid("name", &error))?;
    input.end()?;
    Ok(name)
}

/// A person as a record.
pub fn encode_person(person: &Person) -> Result<Vec<u8>, RecordError> {
    let mut out = Writer::new();
    out.text("id", person.id.as_str())?;
    out.text("name", &person.name)?;
    out.count("metadata", person.metadata.len())?;
    for (key, value) in &person.metadata {
        out.text("metadata", key)?;
        out.text("metadata", value)?;
    }
    out.byte(match person.storage {
        FaceStorageType::NoStorage => 0,
        FaceStorageType::StoreThumbnails => 1,
        FaceStorageType::StoreFullImage => 2,
    });
    out.time(person.created);
    out.time(person.updated);
    references_allowed(person.references.len())?;
    out.count("references", person.references.len())?;
    for reference in &person.references {
        out.text("model", &reference.model.0)?;
        out.count("template", reference.template.dimension())?;
        for value in reference.template.values() {
            out.0.extend_from_slice(&value.to_le_bytes());
        }
    }
    if let Some(ratio) = person.eye_ratio {
        out.0[0] = FORM_WITH_EYES;
        out.0.extend_from_slice(&ratio.value().to_le_bytes());
    }
    Ok(out.0)
}

/// The person of a record.
pub fn decode_person(bytes: &[u8]) -> Result<Person, RecordError> {
    let (mut input, has_eyes) = match bytes.split_first() {
        Some((&FORM_WITH_EYES, rest)) => (Reader(rest), true),
        _ => (Reader::new(bytes)?, false),
    };
    let id = PersonId::new(input.text("id")?).map_err(|error| invalid("id", &error))?;
    let name = input.text("name")?.to_string();
    let mut metadata = BTreeMap::new();
    for _ in 0..input.count()? {
        let key = input.text("metadata")?.to_string();
        metadata.insert(key, input.text("metadata")?.to_string());
    }
    let storage = match input.byte()? {
        0 => FaceStorageType::NoStorage,
        1 => FaceStorageType::StoreThumbnails,
        2 => FaceStorageType::StoreFullImage,
        other => return Err(invalid("storage", &other)),
    };
    let (created, updated) = (input.time()?, input.time()?);
    let count = input.count()?;
    references_allowed(count)?;
    let references = (0..count).map(|_| decode_reference(&mut input)).collect::<Result<_, _>>()?;
    let eye_ratio = has_eyes.then(|| decode_eye_ratio(&mut input)).transpose()?;
    input.end()?;
    Ok(Person { id, name, metadata, storage, references, eye_ratio, created, updated })
}

fn decode_reference(input: &mut Reader<'_>) -> Result<Reference, RecordError> {
    let model = EmbeddingModelId(input.text("model")?.to_string());
    let dimension = input.count()?;
    let bytes = input.take(dimension.checked_mul(4).ok_or(RecordError::Truncated)?)?;
    let values: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let template =
        Template::from_embedding(&values).map_err(|error| invalid("template", &error))?;
    Ok(Reference { template, model })
}

fn decode_eye_ratio(input: &mut Reader<'_>) -> Result<EyeRatio, RecordError> {
    let ratio = f32::from_le_bytes(input.array()?);
    EyeRatio::new(ratio).ok_or_else(|| invalid("eye_ratio", &ratio))
}

fn references_allowed(count: usize) -> Result<(), RecordError> {
    if (1..=REFERENCES_PER_PERSON_MAX).contains(&count) {
        return Ok(());
    }
    Err(invalid("references", &format!("{count} reference faces")))
}

/// An API key as a record.
pub fn encode_key(key: &KeyRecord) -> Result<Vec<u8>, RecordError> {
    let mut out = Writer::new();
    out.text("id", &key.id)?;
    out.text("name", &key.name)?;
    out.0.extend_from_slice(&key.sha256);
    out.time(key.created);
    out.count("scopes", key.scopes.len())?;
    for scope in &key.scopes {
        out.byte(match scope {
            Scope::Search => 0,
            Scope::Enrol => 1,
            Scope::Events => 2,
            Scope::Door => 3,
            Scope::Admin => 4,
        });
    }
    Ok(out.0)
}

/// The API key of a record.
pub fn decode_key(bytes: &[u8]) -> Result<KeyRecord, RecordError> {
    let mut input = Reader::new(bytes)?;
    let id = input.text("id")?.to_string();
    let name = input.text("name")?.to_string();
    let sha256 = input.array::<32>()?;
    let created = input.time()?;
    let count = input.count()?;
    let scopes = input
        .take(count)?
        .iter()
        .map(|code| match code {
            0 => Ok(Scope::Search),
            1 => Ok(Scope::Enrol),
            2 => Ok(Scope::Events),
            3 => Ok(Scope::Door),
            4 => Ok(Scope::Admin),
            other => Err(invalid("scopes", other)),
        })
        .collect::<Result<_, _>>()?;
    input.end()?;
    Ok(KeyRecord { id, name, sha256, scopes, created })
}

/// An event as a record.
pub fn encode_event(event: &Event) -> Result<Vec<u8>, RecordError> {
    let mut out = Writer::new();
    serde_json::to_writer(&mut out.0, event).map_err(|error| invalid("event", &error))?;
    Ok(out.0)
}

/// The event of a record.
pub fn decode_event(bytes: &[u8]) -> Result<Event, RecordError> {
    let input = Reader::new(bytes)?;
    serde_json::from_slice(input.0).map_err(|error| invalid("event", &error))
}

/// An entry of the audit log as a record.
pub fn encode_audit(entry: &AuditEntry) -> Result<Vec<u8>, RecordError> {
    let mut out = Writer::new();
    serde_json::to_writer(&mut out.0, entry).map_err(|error| invalid("audit", &error))?;
    Ok(out.0)
}

/// The entry of the audit log of a record.
pub fn decode_audit(bytes: &[u8]) -> Result<AuditEntry, RecordError> {
    let input = Reader::new(bytes)?;
    serde_json::from_slice(input.0).map_err(|error| invalid("audit", &error))
}

fn invalid(field: &'static str, reason: &dyn std::fmt::Display) -> RecordError {
    RecordError::Field { field, reason: reason.to_string() }
}

/// Writes the fields of a record after its form.
struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        Self(vec![FORM])
    }

    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    fn time(&mut self, time: UtcTime) {
        self.0.extend_from_slice(&time.as_millis().to_le_bytes());
    }

    fn count(&mut self, field: &'static str, count: usize) -> Result<(), RecordError> {
        let count = u32::try_from(count).map_err(|error| invalid(field, &error))?;
        self.0.extend_from_slice(&count.to_le_bytes());
        Ok(())
    }

    fn text(&mut self, field: &'static str, text: &str) -> Result<(), RecordError> {
        self.count(field, text.len())?;
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// What is left to read of a record.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            Some((&FORM, rest)) => Ok(Self(rest)),
            Some((&form, _)) => Err(RecordError::UnknownForm(form)),
            None => Err(RecordError::Truncated),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn time(&mut self) -> Result<UtcTime, RecordError> {
        self.array().map(|bytes| UtcTime::from_millis(i64::from_le_bytes(bytes)))
    }

    fn count(&mut self) -> Result<usize, RecordError> {
        self.array().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, RecordError> {
        let length = self.count()?;
        std::str::from_utf8(self.take(length)?).map_err(|error| invalid(field, &error))
    }

    fn end(self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::TrailingBytes(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::access::event::EventType;

    /// Coordinate axes: unit vectors to the last bit, so that what is read equals what was written.
    fn axis(at: usize, dimension: usize) -> Template {
        let mut embedding = vec![0.0; dimension];
        embedding[at % dimension] = 1.0;
        Template::from_embedding(&embedding).unwrap()
    }

    prop_compose! {
        fn any_person()(
            id in "[^\\p{Cc}]{1,40}",
            name in any::<String>(),
            metadata in prop::collection::btree_map(any::<String>(), any::<String>(), 0..5),
            storage in prop_oneof![
                Just(FaceStorageType::NoStorage),
                Just(FaceStorageType::StoreThumbnails),
                Just(FaceStorageType::StoreFullImage)
            ],
            references in prop::collection::vec(
                (any::<usize>(), 1_usize..600, any::<String>()), 1..=REFERENCES_PER_PERSON_MAX
            ),
            eye_ratio in prop::option::of(0.0_f32..=1.0),
            created: i64,
            updated: i64,
        ) -> Person {
            Person {
                id: PersonId::new(&id).unwrap(),
                name,
                metadata,
                storage,
                references: references
                    .into_iter()
                    .map(|(at, dimension, model)| Reference {
                        template: axis(at, dimension),
                        model: EmbeddingModelId(model),
                    })
                    .collect(),
                eye_ratio: eye_ratio.and_then(EyeRatio::new),
                created: UtcTime::from_millis(created),
                updated: UtcTime::from_millis(updated),
            }
        }
    }

    fn small_person() -> Person {
        Person {
            id: PersonId::new("7").unwrap(),
            name: "Ada".to_string(),
            metadata: BTreeMap::from([("k".to_string(), "v".to_string())]),
            storage: FaceStorageType::StoreThumbnails,
            references: vec![Reference {
                template: axis(1, 2),
                model: EmbeddingModelId("m".to_string()),
            }],
            eye_ratio: None,
            created: UtcTime::from_millis(1),
            updated: UtcTime::from_millis(-1),
        }
    }

    /// The form is on people's disks; a change of it needs a new form or a migration.
    #[test]
    fn the_form_of_a_person_stays_what_it_was() {
        let expected: &[&[u8]] = &[
            &[1],
            b"\x01\0\0\x007",
            b"\x03\0\0\0Ada",
            b"\x01\0\0\0\x01\0\0\0k\x01\0\0\0v",
            &[1],
            b"\x01\0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x01\0\0\0\x01\0\0\0m\x02\0\0\0\0\0\0\0\0\0\x80\x3f",
        ];
        assert_eq!(encode_person(&small_person()).unwrap(), expected.concat());
        assert_eq!(decode_person(&expected.concat()), Ok(small_person()));
    }

    #[test]
    fn a_person_whose_open_eyes_are_known_has_one_number_more() {
        let plain = encode_person(&small_person()).unwrap();
        let person = Person { eye_ratio: EyeRatio::new(0.25), ..small_person() };
        let expected = [&[2], &plain[1..], b"\0\0\x80\x3e"].concat();
        assert_eq!(encode_person(&person).unwrap(), expected);
        assert_eq!(decode_person(&expected), Ok(person));
        assert_eq!(decode_person(&expected[..plain.len()]), Err(RecordError::Truncated));
        for wrong in [-0.1, 1.5, f32::NAN, f32::INFINITY] {
            let bytes = [&expected[..plain.len()], &wrong.to_le_bytes()].concat();
            let error = decode_person(&bytes).unwrap_err().to_string();
            assert!(error.contains("`eye_ratio`"), "{error}");
        }
        let longer = [expected.as_slice(), &[0]].concat();
        assert_eq!(decode_person(&longer), Err(RecordError::TrailingBytes(1)));
    }

    #[test]
    fn wrong_fields_are_named() {
        let good = encode_person(&small_person()).unwrap();
        let at = |position: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[position] = byte;
            decode_person(&bytes).unwrap_err().to_string()
        };
        assert!(at(0, 9).contains("form 9"));
        assert!(at(5, b'\n').contains("`id`"));
        assert!(at(10, 0xff).contains("`name`"));
        assert!(at(27, 3).contains("`storage`"));
        assert!(at(44, 17).contains("`references`"));
        assert!(at(44, 0).contains("`references`"));
        assert!(
            at(good.len() - 1, 0x7f).contains("left over")
                || at(good.len() - 1, 0xff).contains("`template`")
        );
        let longer = [good.as_slice(), &[0]].concat();
        assert_eq!(decode_person(&longer), Err(RecordError::TrailingBytes(1)));
        for end in 0..good.len() {
            assert!(decode_person(&good[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_person_has_1_to_16_reference_faces() {
        for count in [0, REFERENCES_PER_PERSON_MAX + 1] {
            let reference = small_person().references.remove(0);
            let person = Person { references: vec![reference; count], ..small_person() };
            let error = encode_person(&person).unwrap_err();
            assert!(error.to_string().contains("`references`"), "{error}");
        }
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let lie = [&[FORM][..], &u32::MAX.to_le_bytes()].concat();
        assert_eq!(decode_person(&lie), Err(RecordError::Truncated));
        assert_eq!(decode_key(&lie), Err(RecordError::Truncated));
        assert_eq!(decode_collection(&lie), Err(RecordError::Truncated));
        // Metadata entries and template dimensions are counted, too.
        let mut metadata = encode_person(&small_person()).unwrap();
        metadata[13..17].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode_person(&metadata).is_err());
        let mut dimension = encode_person(&small_person()).unwrap();
        let at = dimension.len() - 12;
        dimension[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode_person(&dimension), Err(RecordError::Truncated));
    }

    #[test]
    fn keys_and_collections_survive_their_records() {
        let all = [Scope::Search, Scope::Enrol, Scope::Events, Scope::Door, Scope::Admin];
        for scopes in [vec![], vec![Scope::Door], all.to_vec()] {
            let key = KeyRecord {
                id: "k1".to_string(),
                name: "Door panel".to_string(),
                sha256: [9; 32],
                scopes,
                created: UtcTime::from_millis(77),
            };
            assert_eq!(decode_key(&encode_key(&key).unwrap()), Ok(key));
        }
        let name = CollectionName::new("staff-2.0").unwrap();
        assert_eq!(decode_collection(&encode_collection(&name).unwrap()), Ok(name));
        assert!(decode_collection(b"\x01\x03\0\0\0a b").is_err());
    }

    #[test]
    fn migrations_lead_from_the_first_version_to_the_present_one() {
        let from: Vec<u32> = MIGRATIONS.iter().map(|step| step.from).collect();
        assert_eq!(from, (1..SCHEMA_VERSION).collect::<Vec<_>>());
    }

    #[test]
    fn records_of_version_1_are_records_of_version_2() {
        let record = encode_person(&small_person()).unwrap();
        for table in SEALED_TABLES {
            assert_eq!((MIGRATIONS[0].rewrite)(table, &record).as_ref(), Ok(&record));
        }
    }

    #[test]
    fn events_sort_by_their_number() {
        let keys = [1, 255, 256, 65_536, u64::MAX].map(event_key);
        assert!(keys.is_sorted());
        assert_eq!(event_seq(&keys[2]), Ok(256));
        assert_eq!(event_seq(b"short"), Err(RecordError::Truncated));
    }

    proptest! {
        #[test]
        fn people_survive_their_records(person in any_person()) {
            prop_assert_eq!(decode_person(&encode_person(&person).unwrap()), Ok(person));
        }

        #[test]
        fn templates_keep_their_direction(values in prop::collection::vec(-1.0_f32..1.0, 1..200)) {
            let Ok(template) = Template::from_embedding(&values) else { return Ok(()) };
            let mut person = small_person();
            person.references[0].template = template.clone();
            let read = decode_person(&encode_person(&person).unwrap()).unwrap();
            for (one, other) in read.references[0].template.values().iter().zip(template.values()) {
                prop_assert!((one - other).abs() <= f32::EPSILON);
            }
        }

        #[test]
        fn any_bytes_are_answered(mut bytes: Vec<u8>, form: bool) {
            if form {
                bytes.insert(0, FORM);
            }
            let _ = (decode_person(&bytes), decode_key(&bytes), decode_collection(&bytes));
            let _ = (decode_event(&bytes), decode_audit(&bytes));
        }

        #[test]
        fn one_changed_byte_is_answered(person in any_person(), at: prop::sample::Index, to: u8) {
            let mut bytes = encode_person(&person).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = decode_person(&bytes);
        }
    }

    #[test]
    fn an_entry_of_a_later_program_is_read_as_far_as_it_is_understood() {
        let json = r#"{"seq":7,"time":"2026-01-01T00:00:00Z","by":"k1","act":"delete_person",
            "subject":"staff/7","times":1,"more":true}"#;
        let entry: AuditEntry = serde_json::from_str(json).unwrap();
        assert_eq!(entry.act, crate::store::AuditAct::DeletePerson);
        assert_eq!(decode_audit(&encode_audit(&entry).unwrap()), Ok(entry.clone()));
        let later: AuditEntry = serde_json::from_str(&json.replace("delete_", "paint_")).unwrap();
        assert_eq!(later, AuditEntry { act: crate::store::AuditAct::Other, ..entry });
    }

    #[test]
    fn events_are_json_after_the_form() {
        let json = r#"{"v":1,"event_type":"unknown_face","id":"01","seq":4,"boot":"b","t_capture":null,
            "t_decision":"2026-01-01T00:00:00Z","t_relay":null,"latency_ms":null,
            "exp":"2026-01-01T00:00:05Z","camera":null,"door":null,"direction":null,
            "collection":null,"person":null,"similarity_score":0.7,"method":[],"liveness":null,
            "quality":null,"frames":1,"track":null,"reason":"ambiguous_top2","schedule":null,
            "image":null}"#;
        let event: Event = serde_json::from_str(json).unwrap();
        assert_eq!(event.event_type, EventType::UnknownFace);
        let bytes = encode_event(&event).unwrap();
        assert_eq!(bytes[0], FORM);
        assert_eq!(decode_event(&bytes), Ok(event));
        let deep = [&[FORM][..], &"[".repeat(100_000).into_bytes()].concat();
        assert!(decode_event(&deep).is_err());
    }
}
