//! `GET /audit`: who did what, for administrators.

use hyper::{Response, body::Bytes};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::UtcTime;
use crate::store::AuditEntry;
use crate::web::error::ApiError;
use crate::web::reply;
use crate::web::service::{Admitted, Service};

/// Entries of one page, unless the caller says otherwise.
const LIMIT_DEFAULT: u64 = 100;
/// Most entries of one page.
const LIMIT_MAX: u64 = 1000;

/// One page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditAnswer {
    /// Number of the oldest entry that the log still holds.
    pub oldest_seq: u64,
    /// Number that was given last.
    pub newest_seq: u64,
    /// Entries that have left the log.
    pub dropped: u64,
    /// What to ask for next.
    pub next_after_seq: u64,
    /// The page, oldest first.
    pub entries: Vec<AuditEntryAnswer>,
}

/// Who did what.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntryAnswer {
    /// Its number.
    pub seq: u64,
    /// When it was asked for; of several that were counted together, the first.
    #[schema(value_type = String)]
    pub time: UtcTime,
    /// Id of a key; `local`, `device` or `retention` for what came without one.
    pub by: String,
    /// What: `create_collection`, `delete_collection`, `enrol`, `delete_person`, `add_key`,
    /// `revoke_key`, `back_up`, `restore`, `maintain`, `export`, `read_people`, `search`, `compare`.
    pub act: &'static str,
    /// To what or whom.
    pub subject: String,
    /// How many times.
    pub times: u32,
}

impl From<AuditEntry> for AuditEntryAnswer {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { seq, time, by, act, subject, times } = entry;
        Self { seq, time, by, act: act.word(), subject, times }
    }
}

/// `GET /audit`: what was counted until now is written down first, so that it is in the answer.
pub async fn list(service: &Service, request: &Admitted) -> Result<Response<Bytes>, ApiError> {
    let after_seq = request.query.count("after_seq")?.unwrap_or(0);
    let limit = request.query.count("limit")?.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::invalid("limit", "expected a whole number from 1 to 1000"));
    }
    service.blocking(|roster| Ok(roster.audit().flush()?)).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (entries, bounds) = service
        .events()
        .read(move |store| {
            let entries = store.audit(after_seq, limit)?;
            Ok((entries, store.audit_bounds()?))
        })
        .await?;
    reply::ok(&AuditAnswer {
        oldest_seq: bounds.oldest_seq,
        newest_seq: bounds.newest_seq,
        dropped: bounds.dropped,
        next_after_seq: entries.last().map_or(after_seq, |entry| entry.seq),
        entries: entries.into_iter().map(AuditEntryAnswer::from).collect(),
    })
}
