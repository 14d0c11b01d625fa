//! The form of a backup: sealed records in a row, then a digest of all of it and a signature.
//!
//! A backup is a stream and not a copy of the database file: it holds the live records of one
//! moment and nothing that was deleted before, it can be written while the store is in use, and it
//! is smaller. Numbers are little-endian; text is its length in bytes (`u32`) and UTF-8.
//!
//! | part | what |
//! |---|---|
//! | head | `facelatch backup`, form (`u8`, 1), schema version (`u32`), time (`i64`, milliseconds), text: version of the program, `u32`: number of tables |
//! | each table | text: its name, `u64`: number of records, then each record: `u32`, `u32`: lengths of key and value, key, value |
//! | end | SHA-256 of all bytes before it; HMAC-SHA-256 of that digest by the store's key |
//!
//! The digest tells a torn or altered file without any key, so [`check`] is done before anything
//! else is looked at. The signature tells, with the key, that the store itself made it. Lengths are
//! bounded, and nothing is allocated for bytes that are not there.

use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::clock::UtcTime;

/// What every backup begins with.
pub const MAGIC: &[u8; 16] = b"facelatch backup";
/// The form that is written and read.
const FORM: u8 = 1;
/// Bytes of digest and signature.
const END_BYTES: u64 = 64;
/// Longest name of a table or version of a program, in bytes.
const TEXT_BYTES_MAX: u32 = 256;
/// Most tables; there are six.
const TABLES_MAX: u32 = 64;
/// Longest key of a record, in bytes; the longest is that of a person, 32.
const KEY_BYTES_MAX: u32 = 1024;
/// Longest value, in bytes: a sealed picture of the largest request body, 256 MiB, fits.
const VALUE_BYTES_MAX: u32 = 512 << 20;
/// Bytes that are read at one time to be digested.
const CHUNK_BYTES: usize = 64 << 10;

/// Why a file is not a backup that can be used.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// Something else.
    #[error("it is not a backup of facelatch")]
    Foreign,
    /// A form of a later program.
    #[error("it has form {0} and this program understands form {FORM}; install a newer version")]
    TooNew(u8),
    /// Cut short, or changed since it was written.
    #[error("it is torn or was altered since it was made ({0}); use another backup")]
    Altered(&'static str),
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a backup says of itself before its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Schema version of the records.
    pub schema_version: u32,
    /// When it was made, by the clock of its device.
    pub created: UtcTime,
    /// Version of the program that made it.
    pub program: String,
}

/// Digest and signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// SHA-256 of everything before it.
    pub sha256: [u8; 32],
    /// By the store's key.
    pub signature: [u8; 32],
}

/// Writes a backup.
pub struct ArchiveWriter<'a> {
    out: &'a mut dyn Write,
    digest: Sha256,
    bytes: u64,
}

impl<'a> ArchiveWriter<'a> {
    /// Begins a backup of `tables` tables.
    pub fn begin(out: &'a mut dyn Write, head: &Head, tables: u32) -> io::Result<Self> {
        let mut writer = Self { out, digest: Sha256::new(), bytes: 0 };
        writer.put(MAGIC)?;
        writer.put(&[FORM])?;
        writer.put(&head.schema_version.to_le_bytes())?;
        writer.put(&head.created.as_millis().to_le_bytes())?;
        writer.text(&head.program)?;
        writer.put(&tables.to_le_bytes())?;
        Ok(writer)
    }

    /// Begins a table, of which `records` records follow.
    pub fn table(&mut self, name: &str, records: u64) -> io::Result<()> {
        self.text(name)?;
        self.put(&records.to_le_bytes())
    }

    /// The next record of the table.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.put(&length(key, KEY_BYTES_MAX)?.to_le_bytes())?;
        self.put(&length(value, VALUE_BYTES_MAX)?.to_le_bytes())?;
        self.put(key)?;
        self.put(value)
    }

    /// Ends the backup with its digest and what `sign` makes of it; answers its length in bytes.
    pub fn end(self, sign: impl FnOnce(&[u8; 32]) -> [u8; 32]) -> io::Result<u64> {
        let sha256: [u8; 32] = self.digest.finalize().into();
        self.out.write_all(&sha256)?;
        self.out.write_all(&sign(&sha256))?;
        self.out.flush()?;
        Ok(self.bytes + END_BYTES)
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.put(&length(text.as_bytes(), TEXT_BYTES_MAX)?.to_le_bytes())?;
        self.put(text.as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// The length, if the form can hold it.
fn length(bytes: &[u8], most: u32) -> io::Result<u32> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= most);
    length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a record is too long"))
}

/// Reads a whole file and makes sure that it is a backup as it was written. Leaves the file at the
/// beginning of its tables.
pub fn check<R: Read + Seek>(file: &mut R) -> Result<(Head, End), ArchiveError> {
    let bytes = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut start = [0; MAGIC.len() + 1];
    let foreign = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Foreign,
        _ => ArchiveError::Io(error),
    };
    file.read_exact(&mut start).map_err(foreign)?;
    match start.split_last() {
        Some((&FORM, magic)) if magic == MAGIC => {}
        Some((&form, magic)) if magic == MAGIC => return Err(ArchiveError::TooNew(form)),
        _ => return Err(ArchiveError::Foreign),
    }
    let content = bytes.checked_sub(END_BYTES).ok_or(ArchiveError::Altered("it is too short"))?;
    file.seek(SeekFrom::Start(0))?;
    let sha256 = digest(&mut (&mut *file).take(content))?;
    let (mut said, mut signature) = ([0; 32], [0; 32]);
    file.read_exact(&mut said)?;
    file.read_exact(&mut signature)?;
    if said != sha256 {
        return Err(ArchiveError::Altered("its digest does not fit"));
    }
    file.seek(SeekFrom::Start(start.len() as u64))?;
    let head = Head {
        schema_version: u32::from_le_bytes(array(file)?),
        created: UtcTime::from_millis(i64::from_le_bytes(array(file)?)),
        program: text(file)?,
    };
    Ok((head, End { sha256, signature }))
}

fn digest(content: &mut impl Read) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match content.read(&mut chunk)? {
            0 => return Ok(digest.finalize().into()),
            read => digest.update(&chunk[..read]),
        }
    }
}

/// Hands every record of a checked backup to `take`: name of the table, key, value. `file` stands
/// at the beginning of the tables.
pub fn read_tables<R: Read, E: From<ArchiveError>>(
    file: &mut R,
    mut take: impl FnMut(&str, &[u8], &[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let tables = u32::from_le_bytes(array(file)?);
    if tables > TABLES_MAX {
        return Err(ArchiveError::Altered("it has too many tables").into());
    }
    let mut all = 0;
    for _ in 0..tables {
        let name = text(file)?;
        let records = u64::from_le_bytes(array(file)?);
        for _ in 0..records {
            let key_bytes = u32::from_le_bytes(array(file)?);
            let value_bytes = u32::from_le_bytes(array(file)?);
            if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
                return Err(ArchiveError::Altered("a record is too long").into());
            }
            let key = exactly(file, key_bytes)?;
            let value = exactly(file, value_bytes)?;
            take(&name, &key, &value)?;
        }
        all += records;
    }
    Ok(all)
}

fn text(file: &mut impl Read) -> Result<String, ArchiveError> {
    let bytes = u32::from_le_bytes(array(file)?);
    if bytes > TEXT_BYTES_MAX {
        return Err(ArchiveError::Altered("a name is too long"));
    }
    let text = String::from_utf8(exactly(file, bytes)?);
    text.map_err(|_| ArchiveError::Altered("a name is not text"))
}

fn array<const N: usize>(file: &mut impl Read) -> Result<[u8; N], ArchiveError> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

/// Grows with what is there, not with what the length promises.
fn exactly(file: &mut impl Read, bytes: u32) -> Result<Vec<u8>, ArchiveError> {
    let mut read = Vec::new();
    file.take(u64::from(bytes)).read_to_end(&mut read)?;
    if read.len() == bytes as usize {
        return Ok(read);
    }
    Err(ArchiveError::Altered("a record is cut short"))
}

fn cut(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Altered("it ends too early"),
        _ => ArchiveError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    type Table = (String, Vec<(Vec<u8>, Vec<u8>)>);

    fn head() -> Head {
        let created = UtcTime::from_millis(1_700_000_000_000);
        Head { schema_version: 2, created, program: "0.1.0".to_string() }
    }

    fn written(tables: &[Table]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = ArchiveWriter::begin(&mut out, &head(), tables.len() as u32).unwrap();
        for (name, records) in tables {
            writer.table(name, records.len() as u64).unwrap();
            for (key, value) in records {
                writer.record(key, value).unwrap();
            }
        }
        let bytes = writer.end(|sha256| sha256.map(|byte| !byte)).unwrap();
        assert_eq!(bytes, out.len() as u64);
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<Table>, ArchiveError> {
        let mut file = Cursor::new(bytes);
        let (read_head, end) = check(&mut file)?;
        assert_eq!(read_head, head());
        assert_eq!(end.signature, end.sha256.map(|byte| !byte));
        let mut tables: Vec<Table> = Vec::new();
        read_tables(&mut file, |name, key, value| -> Result<(), ArchiveError> {
            if tables.last().is_none_or(|(last, _)| last != name) {
                tables.push((name.to_string(), Vec::new()));
            }
            let records = &mut tables.last_mut().expect("one was pushed").1;
            records.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(tables)
    }

    fn small() -> Vec<Table> {
        let records = vec![(b"a".to_vec(), b"one".to_vec()), (b"b".to_vec(), vec![7; 300])];
        vec![("meta".to_string(), records.clone()), ("persons".to_string(), records)]
    }

    /// The form is on people's disks; a change of it needs a new form.
    #[test]
    fn the_form_stays_what_it_was() {
        let one = vec![("keys".to_string(), vec![(b"k".to_vec(), b"value".to_vec())])];
        let bytes = written(&one);
        let expected: &[&[u8]] = &[
            b"facelatch backup\x01\x02\0\0\0",
            &1_700_000_000_000_i64.to_le_bytes(),
            b"\x05\0\0\x000.1.0\x01\0\0\0",
            b"\x04\0\0\0keys\x01\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0kvalue",
        ];
        assert_eq!(bytes[..bytes.len() - 64], expected.concat());
        assert_eq!(read(&bytes).unwrap(), one);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_refused() {
        let whole = written(&small());
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
        // A flip within the signature is for whoever has the key to notice.
        for at in 0..whole.len() - 32 {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert!(read(&bytes).is_err(), "flipped at {at}");
        }
        assert!(read(&[&whole[..], b"more"].concat()).is_err());
    }

    #[test]
    fn what_is_something_else_is_called_so() {
        for bytes in [&b""[..], b"redb\x1a\x0a\xa9\x0d\x0a", &[0; 500]] {
            assert!(matches!(read(bytes), Err(ArchiveError::Foreign)), "{bytes:?}");
        }
        let mut later = written(&small());
        later[MAGIC.len()] = 2;
        assert!(matches!(read(&later), Err(ArchiveError::TooNew(2))));
    }

    /// Somebody who alters a backup and mends its digest gets an answer, too.
    #[test]
    fn lengths_that_lie_allocate_nothing() {
        let mend = |mut bytes: Vec<u8>| {
            let content = bytes.len() - 64;
            let sha256: [u8; 32] = Sha256::digest(&bytes[..content]).into();
            bytes[content..content + 32].copy_from_slice(&sha256);
            bytes
        };
        let whole = written(&small());
        for at in MAGIC.len() + 1..whole.len() - 64 {
            let mut bytes = whole.clone();
            bytes[at] = 0xff;
            let mut file = Cursor::new(mend(bytes));
            if check(&mut file).is_ok() {
                let ignore = |_: &str, _: &[u8], _: &[u8]| Ok::<(), ArchiveError>(());
                let _ = read_tables(&mut file, ignore);
            }
        }
    }

    proptest! {
        #[test]
        fn records_survive(
            values in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 1..20),
        ) {
            let tables = vec![("events".to_string(), values)];
            prop_assert_eq!(read(&written(&tables)).unwrap(), tables);
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            prop_assert!(read(&[&MAGIC[..], &[FORM], &bytes].concat()).is_err());
        }
    }
}
