//! A hostile medium in memory: it keeps apart what was written and what was synchronised, fails on
//! demand, can be full, and loses its power at any operation.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{ReadOnlyDatabase, StorageBackend};

use crate::store::StoreError;
use crate::store::database::medium::{Medium, OpenedCopy};
use crate::store::database::{Database, Schema};
use crate::store::schema;
use crate::store::vault::MasterKey;

/// The medium; clones share it.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    live: Option<Image>,
    fresh: Option<Image>,
    kept: Vec<(String, Vec<u8>)>,
    faults: Faults,
    operations: u64,
    /// Called whenever a file is about to be closed.
    closing: Option<Arc<dyn Fn() + Send + Sync>>,
}

#[derive(Clone, Copy, Default)]
struct Faults {
    /// Operations that succeed before the failures begin.
    after: Option<u64>,
    /// How many fail then; the rest succeeds again.
    count: u64,
    /// Most bytes of one file.
    capacity: Option<usize>,
}

type Image = Arc<Mutex<ImageState>>;

#[derive(Debug, Default)]
struct ImageState {
    /// An open file refuses to be opened again, as the lock of a file does.
    opened: bool,
    written: Vec<u8>,
    durable: Vec<u8>,
    /// What happened since the last synchronisation, in order.
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(at, data) => {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    pub fn open_store(&self, events_max: u64) -> Result<Database, StoreError> {
        let key = MasterKey::new(zeroize::Zeroizing::new([5; 32]));
        let schema = Schema { version: schema::SCHEMA_VERSION, migrations: schema::MIGRATIONS };
        Database::on_medium(Box::new(self.clone()), (&key, "key".to_string()), events_max, schema)
    }

    /// After `after` more operations, `count` of them fail.
    pub fn fail(&self, after: u64, count: u64) {
        let mut state = self.state();
        state.faults = Faults { after: Some(after), count, capacity: state.faults.capacity };
    }

    pub fn limit(&self, capacity: Option<usize>) {
        self.state().faults.capacity = capacity;
    }

    pub fn heal(&self) {
        self.state().faults = Faults::default();
    }

    /// Reads, writes, synchronisations and renames until now.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Databases that were kept beside the live one: end of the name, bytes.
    pub fn kept(&self) -> Vec<(String, Vec<u8>)> {
        self.state().kept.clone()
    }

    /// What is in the live file.
    pub fn bytes_of_live(&self) -> Vec<u8> {
        let state = self.state();
        let live = state.live.as_ref().expect("there is one");
        live.lock().unwrap().written.clone()
    }

    /// Puts something else into the live file, which nobody has open.
    pub fn overwrite_live(&self, bytes: &[u8]) {
        let (written, durable) = (bytes.to_vec(), bytes.to_vec());
        let image = ImageState { written, durable, ..ImageState::default() };
        self.state().live = Some(Arc::new(Mutex::new(image)));
    }

    /// Bytes of the live file.
    pub fn length(&self) -> usize {
        self.state().live.as_ref().map_or(0, |live| live.lock().unwrap().written.len())
    }

    /// What is on the medium after a power cut: all that was synchronised, and of the rest what
    /// `survives` says of each operation: all of it, none, or the first half of a write.
    pub fn after_power_cut(&self, mut survives: impl FnMut() -> Survival) -> Self {
        let mut cut = |image: &Image| {
            let image = image.lock().unwrap();
            let mut bytes = image.durable.clone();
            for pending in &image.pending {
                match (survives(), pending) {
                    (Survival::Whole, pending) => pending.apply(&mut bytes),
                    (Survival::Torn, Pending::Write(at, data)) => {
                        let half = data[..data.len() / 2].to_vec();
                        Pending::Write(*at, half).apply(&mut bytes);
                    }
                    (Survival::Torn | Survival::Lost, _) => {}
                }
            }
            let (written, durable) = (bytes.clone(), bytes);
            Arc::new(Mutex::new(ImageState { written, durable, ..ImageState::default() }))
        };
        let state = self.state();
        let live = state.live.as_ref().map(&mut cut);
        let fresh = state.fresh.as_ref().map(&mut cut);
        Self(Arc::new(Mutex::new(State { live, fresh, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.operations += 1;
        match &mut state.faults {
            Faults { after: Some(0), count: 0, .. } | Faults { after: None, .. } => Ok(state),
            Faults { after: Some(0), count, .. } => {
                *count -= 1;
                Err(io::Error::other("the medium failed"))
            }
            Faults { after: Some(after), .. } => {
                *after -= 1;
                Ok(state)
            }
        }
    }

    /// Before a file is closed, `hook` is called.
    pub fn on_close(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.state().closing = Some(Arc::new(hook));
    }

    /// Opens a file for writing, which takes its lock.
    fn backend(&self, image: Image) -> Result<Backend, redb::DatabaseError> {
        if std::mem::replace(&mut image.lock().unwrap().opened, true) {
            return Err(redb::DatabaseError::DatabaseAlreadyOpen);
        }
        Ok(Backend { disk: self.clone(), image, locks: true })
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Survival {
    Whole,
    Torn,
    Lost,
}

impl Medium for Disk {
    fn name(&self) -> String {
        "the hostile disk".to_string()
    }

    fn bytes(&self) -> io::Result<Option<u64>> {
        let state = self.state();
        Ok(state.live.as_ref().map(|live| live.lock().unwrap().written.len() as u64))
    }

    fn peek(&self, builder: &redb::Builder) -> Result<ReadOnlyDatabase, redb::DatabaseError> {
        let live = self.operate()?.live.clone().expect("asked for only if it exists");
        let backend = Backend { disk: self.clone(), image: live, locks: false };
        builder.open_read_only_with_backend(backend)
    }

    fn open(&self, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError> {
        let live = self.operate()?.live.clone().expect("asked for only if it exists");
        builder.create_with_backend(self.backend(live)?)
    }

    fn create_fresh(&self, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError> {
        let image = Image::default();
        self.operate()?.fresh = Some(Arc::clone(&image));
        builder.create_with_backend(self.backend(image)?)
    }

    fn promote_fresh(&self) -> io::Result<()> {
        let mut state = self.operate()?;
        state.live = state.fresh.take();
        Ok(())
    }

    fn discard_fresh(&self) -> io::Result<()> {
        self.operate()?.fresh = None;
        Ok(())
    }

    fn keep_copy(&self, suffix: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        let live = state.live.as_ref().expect("asked for only if it exists");
        let live = live.lock().unwrap();
        assert!(!live.opened, "a database that is open must not be copied");
        let bytes = live.written.clone();
        drop(live);
        state.kept.push((suffix.to_string(), bytes));
        Ok(())
    }

    fn kept(&self, suffix: &str, builder: &redb::Builder) -> Option<OpenedCopy> {
        let (_, written) = self.state().kept.iter().find(|(name, _)| name == suffix)?.clone();
        let durable = written.clone();
        let image = ImageState { written, durable, ..ImageState::default() };
        let image = Arc::new(Mutex::new(image));
        let backend = Backend { disk: self.clone(), image, locks: false };
        Some(builder.open_read_only_with_backend(backend))
    }
}

/// An open file: goes on when it is renamed or removed.
struct Backend {
    disk: Disk,
    image: Image,
    locks: bool,
}

impl Drop for Backend {
    fn drop(&mut self) {
        if self.locks {
            let hook = self.disk.state().closing.clone();
            if let Some(hook) = hook {
                hook();
            }
            self.image.lock().unwrap().opened = false;
        }
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Backend")
    }
}

impl Backend {
    fn change(&self, pending: Pending) {
        let mut image = self.image.lock().unwrap();
        pending.apply(&mut image.written);
        image.pending.push(pending);
    }

    fn fits(state: &State, length: usize) -> io::Result<()> {
        match state.faults.capacity {
            Some(capacity) if length > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.image.lock().unwrap().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        drop(self.disk.operate()?);
        let image = self.image.lock().unwrap();
        let from = image.written.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::fits(&*self.disk.operate()?, len as usize)?;
        self.change(Pending::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        drop(self.disk.operate()?);
        let mut image = self.image.lock().unwrap();
        image.durable = image.written.clone();
        image.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        Self::fits(&*self.disk.operate()?, offset as usize + data.len())?;
        self.change(Pending::Write(offset as usize, data.to_vec()));
        Ok(())
    }
}
