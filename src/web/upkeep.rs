//! The store as those see it who look after it: what it is, backups, and what is due every day.
//!
//! Only over the device's own socket. A key that can be stolen over the network must not be able to
//! make backups until the good ones have been rotated away.

use std::sync::Arc;

use hyper::{Response, body::Bytes};
use serde::Serialize;
use tokio::task;
use utoipa::ToSchema;

use crate::clock::UtcTime;
use crate::store::AuditAct;
use crate::store::StoreError;
use crate::web::error::{ApiError, ErrorCode};
use crate::web::reply;
use crate::web::service::{Admitted, Service};

/// Most backups that a caller may ask to keep.
const KEEP_MAX: u64 = 1000;

/// Who looks after the store. Every method blocks on the disk.
pub trait Upkeep: Send + Sync {
    /// What the store is.
    fn info(&self) -> Result<StoreAnswer, StoreError>;
    /// Makes a backup; with `keep`, the oldest go until so many are left.
    fn back_up(&self, keep: Option<usize>) -> Result<BackupAnswer, StoreError>;
    /// Does what is due.
    fn maintain(&self, backup: DailyBackup) -> Result<MaintenanceAnswer, StoreError>;
}

/// Whether the daily work makes a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DailyBackup {
    /// It does.
    Made,
    /// It does not.
    LeftOut,
}

/// The store.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StoreAnswer {
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Version of the form of its records.
    pub schema_version: u32,
    /// Version of the program that last opened it.
    pub program: String,
    /// Schema version before the last migration; `null` if there was none.
    pub migrated_from: Option<u32>,
    /// Collections.
    pub collections: u64,
    /// People of all collections.
    pub persons: u64,
    /// Stored pictures.
    pub images: u64,
    /// API keys.
    pub keys: u64,
    /// Events in the log.
    pub events: u64,
    /// Events that have left the log since the store was made.
    pub events_dropped: u64,
    /// When the oldest event of the log was decided.
    #[schema(value_type = Option<String>)]
    pub oldest_event: Option<UtcTime>,
    /// Whether bytes of deleted records are still in the file.
    pub scrub_owed: bool,
    /// Backups below `<store.dir>/backup`.
    pub backups: usize,
    /// The newest of them.
    pub last_backup: Option<LastBackupAnswer>,
    /// Databases that a migration or a restore replaced, and that are kept for a while.
    pub replaced: Vec<String>,
}

/// The newest backup.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LastBackupAnswer {
    /// Its file.
    pub file: String,
    /// When it was made.
    #[schema(value_type = String)]
    pub created: UtcTime,
    /// Its length.
    pub bytes: u64,
}

/// A backup that was made.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BackupAnswer {
    /// Its file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Records in it, of all kinds.
    pub records: u64,
    /// Schema version of the records.
    pub schema_version: u32,
    /// Where the key is that opens it; the key is not in it.
    pub key_file: String,
    /// Older backups that were removed.
    pub removed: Vec<String>,
}

/// What was due, and was done.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MaintenanceAnswer {
    /// Events that were older than the configuration keeps them.
    pub events_dropped: u64,
    /// People who were deleted, because no camera had seen them for too long.
    pub persons_deleted: usize,
    /// Kept databases that were removed.
    pub replaced_removed: Vec<String>,
    /// The backup, if one was asked for.
    pub backup: Option<BackupAnswer>,
}

/// `GET /store`
pub async fn info(service: &Service) -> Result<Response<Bytes>, ApiError> {
    reply::ok(&work(service, |upkeep| upkeep.info()).await?)
}

/// `POST /backup`
pub async fn back_up(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let keep = request.query.count("keep")?;
    if keep.is_some_and(|keep| !(1..=KEEP_MAX).contains(&keep)) {
        return Err(ApiError::invalid("keep", "expected a whole number from 1 to 1000"));
    }
    service.audit(request, AuditAct::BackUp, "").await?;
    let keep = keep.map(|keep| keep as usize);
    reply::ok(&work(service, move |upkeep| upkeep.back_up(keep)).await?)
}

/// `POST /maintenance`
pub async fn maintain(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let backup =
        if request.query.flag("no_backup")? { DailyBackup::LeftOut } else { DailyBackup::Made };
    service.audit(request, AuditAct::Maintain, "").await?;
    reply::ok(&work(service, move |upkeep| upkeep.maintain(backup)).await?)
}

/// Off the network tasks. The caller is the administrator of this machine, so an error says why.
async fn work<T: Send + 'static>(
    service: &Service,
    work: impl FnOnce(&dyn Upkeep) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let upkeep = service.options().upkeep.as_ref().map(Arc::clone);
    let upkeep = upkeep.ok_or_else(|| {
        ApiError::new(ErrorCode::InternalError).with("reason", "the store is only in memory")
    })?;
    let done = task::spawn_blocking(move || work(&*upkeep)).await;
    done.map_err(|error| ApiError::internal(&error))?.map_err(|error| {
        let reason = error.to_string();
        ApiError::from(error).with("reason", reason)
    })
}
