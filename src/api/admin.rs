//! `/v1/admin/cache`: for staff.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Query},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::App,
    cache::operate::{Explanation, L1Entry, L2Entry, Report},
    error::AppError,
    http::{body::Body, caller::Staff, reply},
    queries::view::View,
    services::operations::{self, DeletePattern, InvalidateTags},
};

/// How this instance's cache is doing. Counts are since its start.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CacheStats {
    object: &'static str,
    instance: String,
    /// L1 may be used at present.
    lease: bool,
    /// Where invalidations come from: `redis`, `journal`, `process` or `none`.
    source: &'static str,
    epoch: String,
    /// Every invalidation up to this one was applied here.
    sequence: u64,
    /// Nothing if L1 is off.
    l1: Option<L1Stats>,
    /// Reads by kind of data, tier and result.
    requests: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
    /// Tags invalidated, by source.
    invalidations: BTreeMap<String, u64>,
}

/// The size of L1.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct L1Stats {
    entries: u64,
    bytes: u64,
}

/// What each tier holds under a key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CacheEntry {
    object: &'static str,
    key: String,
    /// In this instance's memory.
    l1: Option<EntryInL1>,
    l2: Option<EntryInL2>,
}

/// An entry of L1.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EntryInL1 {
    fresh: bool,
    /// Why it is, or is not.
    reason: String,
    /// It is known that there is nothing.
    absent: bool,
    bytes: u32,
    expires_in_ms: u64,
    /// The sequence before it was loaded.
    as_of: Option<u64>,
    tag_count: usize,
}

/// An entry of L2.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EntryInL2 {
    fresh: bool,
    /// Why it is, or is not.
    reason: String,
    /// It is known that there is nothing.
    absent: bool,
    bytes: usize,
    expires_in_ms: u64,
    created_at: Option<DateTime<Utc>>,
    /// The instance that stored it.
    stored_by: Option<String>,
    epoch: Option<String>,
    /// The sequence before it was loaded.
    as_of: Option<u64>,
    /// Its tags, and the sequences at which they were last invalidated or first depended on.
    tags: BTreeMap<String, Option<u64>>,
}

/// How many tags were invalidated.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Invalidated {
    object: &'static str,
    tags: usize,
}

/// Which entry.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EntryQuery {
    /// Such as `workspace:ID:v1`.
    #[param(required = true, value_type = String)]
    key: Option<String>,
}

pub(super) async fn get_cache(
    app: Data<App>,
    _staff: Staff,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let Report { lease, source, epoch, sequence, l1, requests, invalidations } = app.cache.report();
    let stats = CacheStats {
        object: "cache",
        instance: app.served_by.to_str().unwrap_or_default().to_owned(),
        lease,
        source,
        epoch: format!("{epoch:016x}"),
        sequence,
        l1: l1.map(|(entries, bytes)| L1Stats { entries, bytes }),
        requests,
        invalidations,
    };
    reply::uncached(&app, &request, &View::object(0, &stats))
}

pub(super) async fn invalidate_cache(
    app: Data<App>,
    _staff: Staff,
    body: Body<InvalidateTags>,
) -> Result<HttpResponse, AppError> {
    let written = operations::invalidate(&app, &body.0).await?;
    let shown = written.map(|tags| View::object(0, &Invalidated { object: "invalidation", tags }));
    reply::changed_uncached(&shown)
}

pub(super) async fn delete_cache_pattern(
    app: Data<App>,
    _staff: Staff,
    body: Body<DeletePattern>,
) -> Result<HttpResponse, AppError> {
    reply::done(&operations::delete_pattern(&app, &body.0).await?)
}

pub(super) async fn explain_cache_entry(
    app: Data<App>,
    _staff: Staff,
    query: Query<EntryQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, AppError> {
    let key = query.into_inner().key.filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| AppError::parameter("key", "must name an entry"))?;
    let explained = app.cache.explain(&key).await;
    let Explanation { l1, l2 } = explained.map_err(|err| AppError::Unavailable(err.into()))?;
    let entry = CacheEntry { object: "cache_entry", key, l1: l1.map(Into::into), l2: l2.map(Into::into) };
    reply::uncached(&app, &request, &View::object(0, &entry))
}

impl From<L1Entry> for EntryInL1 {
    fn from(entry: L1Entry) -> Self {
        let L1Entry { absent, bytes, expires_in, as_of, tag_count, verdict, fresh } = entry;
        Self {
            fresh,
            reason: verdict,
            absent,
            bytes,
            expires_in_ms: milliseconds(expires_in),
            as_of,
            tag_count,
        }
    }
}

impl From<L2Entry> for EntryInL2 {
    fn from(entry: L2Entry) -> Self {
        let created = entry.created_ms.and_then(|created| i64::try_from(created).ok());
        Self {
            fresh: entry.fresh,
            reason: entry.verdict,
            absent: entry.absent,
            bytes: entry.bytes,
            expires_in_ms: milliseconds(entry.expires_in),
            created_at: created.and_then(DateTime::from_timestamp_millis),
            stored_by: entry.origin,
            epoch: entry.epoch.map(|epoch| format!("{epoch:016x}")),
            as_of: entry.as_of,
            tags: entry.tags.into_iter().collect(),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
