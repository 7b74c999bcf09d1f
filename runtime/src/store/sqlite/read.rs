//! Queries on executions. They run on readers and see every commit that was
//! acknowledged before they began.

use std::ops::Range;

use cascade_cdl::{Event, ExecutionId, TenantId};
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use uuid::Uuid;

use super::super::{
    Cursor, Error, Excerpt, Filter, Page, StatusName, Stored, Summary, codec, page_size, summaries,
};
use super::{column, unavailable};

/// Rows that one page of a filtered list looks at. Filters without an index
/// cost a scan; this bounds it to some 10 ms, and the page comes back short.
pub(super) const SCAN_ROWS: i64 = 10_000;

/// The columns of a [`Summary`], as [`summary_of`] reads them.
macro_rules! columns {
    () => {
        "seq, tenant, id, bucket, application, application_version, workflow, status, error, \
         started_at, closed_at, wake_at, idle, version, shard_key"
    };
}

/// The filters and bounds of a list, after the terms that choose the index.
macro_rules! filtered {
    () => {
        " AND seq < ?3 AND seq >= ?4 AND (?5 IS NULL OR application = ?5) \
         AND (?6 IS NULL OR workflow = ?6) AND (?7 IS NULL OR started_at > ?7) \
         AND (?8 IS NULL OR started_at < ?8) AND idle >= ?10 AND idle < ?11 \
         AND (?12 IS NULL OR shard_key = ?12) ORDER BY seq DESC LIMIT ?9"
    };
}

const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    ", tail_first, snapshot, history FROM executions WHERE tenant = ? AND id = ?"
);
const SUMMARY: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM executions WHERE tenant = ? AND id = ?"
);
/// Open executions of one bucket, and of the buckets after it: together what
/// `(bucket, seq) > (?, ?)` says, in the order of the index.
const OPEN_IN_BUCKET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM executions INDEXED BY executions_open \
     WHERE status = 0 AND bucket = ? AND seq > ? ORDER BY seq LIMIT ?"
);
const OPEN_IN_BUCKETS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM executions INDEXED BY executions_open \
     WHERE status = 0 AND bucket >= ? AND bucket < ? ORDER BY bucket, seq LIMIT ?"
);
/// The next chunk of a history, or the row's own tail after the last one. In
/// one statement, so that events that move from one to the other meanwhile are
/// seen once; and the tail is not read before its turn.
const HISTORY: &str = "\
    SELECT * FROM (SELECT last_seq, NULL, events FROM history_chunks \
        WHERE tenant = ?1 AND id = ?2 AND last_seq > ?3 ORDER BY last_seq LIMIT 1) \
    UNION ALL \
    SELECT version, tail_first, history FROM executions \
    WHERE tenant = ?1 AND id = ?2 AND version > ?3 AND NOT EXISTS \
        (SELECT 1 FROM history_chunks WHERE tenant = ?1 AND id = ?2 AND last_seq > ?3) \
        AND history <> ''";

/// Lists that no rare status narrows: all of a tenant, newest first.
const LIST: Statements = Statements {
    floor: "SELECT seq FROM executions INDEXED BY executions_by_tenant \
            WHERE tenant = ?1 AND seq < ?3 ORDER BY seq DESC LIMIT 1 OFFSET ?4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM executions INDEXED BY executions_by_tenant \
         WHERE tenant = ?1 AND (?2 IS NULL OR status = ?2)",
        filtered!()
    ),
};
/// Lists of one status other than completed.
const LIST_STATUS: Statements = Statements {
    floor: "SELECT seq FROM executions INDEXED BY executions_by_status \
            WHERE tenant = ?1 AND status = ?2 AND status <> 1 AND seq < ?3 \
            ORDER BY seq DESC LIMIT 1 OFFSET ?4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM executions INDEXED BY executions_by_status \
         WHERE tenant = ?1 AND status = ?2 AND status <> 1",
        filtered!()
    ),
};

/// Lists of one shard key: few of a tenant's executions.
const LIST_KEY: Statements = Statements {
    floor: "SELECT seq FROM executions INDEXED BY executions_by_shard_key \
            WHERE tenant = ?1 AND shard_key = ?2 AND seq < ?3 \
            ORDER BY seq DESC LIMIT 1 OFFSET ?4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM executions INDEXED BY executions_by_shard_key \
         WHERE tenant = ?1 AND shard_key = ?12 AND (?2 IS NULL OR status = ?2)",
        filtered!()
    ),
};

struct Statements {
    /// Where the scan of a page ends.
    floor: &'static str,
    page: &'static str,
}

pub(super) async fn ping(pool: &SqlitePool) -> Result<(), Error> {
    let asked = sqlx::query("SELECT 1").fetch_one(pool).await;
    asked.map(drop).map_err(|error| unavailable(&error))
}

pub(super) async fn load(
    pool: &SqlitePool,
    tenant: &TenantId,
    id: ExecutionId,
) -> Result<Option<Stored>, Error> {
    let row = sqlx::query(LOAD)
        .bind(tenant.to_shared())
        .bind(id.0.as_bytes().to_vec())
        .fetch_optional(pool)
        .await
        .map_err(|error| unavailable(&error))?;
    let Some(row) = row else { return Ok(None) };
    let (_, summary) = summary_of(&row)?;
    let first = codec::to_u64(column(&row, 15)?)?;
    let snapshot: Option<&[u8]> = column(&row, 16)?;
    let history: &[u8] = column(&row, 17)?;
    let tail = codec::decode_events(history, Some(first), summary.version)?;
    Ok(Some(Stored {
        snapshot: snapshot.map(codec::decode_snapshot).transpose()?,
        tail_bytes: history.len(),
        tail,
        summary,
    }))
}

pub(super) async fn summary(
    pool: &SqlitePool,
    tenant: &TenantId,
    id: ExecutionId,
) -> Result<Option<Summary>, Error> {
    let row = sqlx::query(SUMMARY)
        .bind(tenant.to_shared())
        .bind(id.0.as_bytes().to_vec())
        .fetch_optional(pool)
        .await
        .map_err(|error| unavailable(&error))?;
    row.map(|row| summary_of(&row).map(|(_, summary)| summary))
        .transpose()
}

/// Version of an execution; 0 if there is none.
pub(super) async fn version(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    id: ExecutionId,
) -> Result<u64, Error> {
    let found: Option<(i64,)> =
        sqlx::query_as("SELECT version FROM executions WHERE tenant = ? AND id = ?")
            .bind(tenant.to_shared())
            .bind(id.0.as_bytes().to_vec())
            .fetch_optional(sqlite)
            .await
            .map_err(|error| unavailable(&error))?;
    found.map_or(Ok(0), |(version,)| codec::to_u64(version))
}

pub(super) async fn open_executions(
    pool: &SqlitePool,
    buckets: Range<u32>,
    after: Option<Cursor>,
    limit: u32,
) -> Result<Page<Summary>, Error> {
    let limit = page_size(limit);
    let mut rows = Vec::new();
    let mut first = buckets.start;
    if let Some(cursor) = after {
        let (bucket, seq) = codec::bucket_and_seq(cursor);
        first = bucket + 1;
        rows = sqlx::query(OPEN_IN_BUCKET)
            .bind(i64::from(bucket))
            .bind(codec::to_i64(seq))
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await
            .map_err(|error| unavailable(&error))?;
    }
    let left = i64::from(limit) - codec::to_i64(rows.len() as u64);
    if left > 0 {
        let more = sqlx::query(OPEN_IN_BUCKETS)
            .bind(i64::from(first))
            .bind(i64::from(buckets.end))
            .bind(left)
            .fetch_all(pool)
            .await
            .map_err(|error| unavailable(&error))?;
        rows.extend(more);
    }
    summaries(rows.iter().map(summary_of), limit, |seq, summary| {
        codec::bucket_cursor(summary.bucket, seq)
    })
}

/// Row by row, since a row may hold a megabyte as well as a hundred bytes.
pub(super) async fn history(
    pool: &SqlitePool,
    tenant: &TenantId,
    id: ExecutionId,
    after: u64,
    mut excerpt: Excerpt,
) -> Result<Vec<Event>, Error> {
    let mut seen = after;
    while excerpt.has_room() {
        let row = sqlx::query(HISTORY)
            .bind(tenant.to_shared())
            .bind(id.0.as_bytes().to_vec())
            .bind(codec::to_i64(seen))
            .fetch_optional(pool)
            .await
            .map_err(|error| unavailable(&error))?;
        let Some(row) = row else { break };
        let last = codec::to_u64(column(&row, 0)?)?;
        let first: Option<i64> = column(&row, 1)?;
        let first = first.map(codec::to_u64).transpose()?;
        if !codec::decode_after(column(&row, 2)?, first, last, after, &mut excerpt)? {
            break;
        }
        seen = last;
    }
    Ok(excerpt.events)
}

pub(super) async fn list(
    pool: &SqlitePool,
    tenant: &TenantId,
    filter: &Filter,
    before: Option<Cursor>,
    limit: u32,
) -> Result<Page<Summary>, Error> {
    let limit = page_size(limit);
    let before = before.map_or(i64::MAX, |Cursor(seq)| codec::to_i64(seq));
    let open = filter.open.then_some(StatusName::Running);
    let status = filter.status.or(open);
    let statements = match (&filter.shard_key, status) {
        (Some(_), _) => LIST_KEY,
        (None, None | Some(StatusName::Completed)) => LIST,
        (None, Some(_)) => LIST_STATUS,
    };
    let status = status.map(codec::status_code);
    let rests = match filter.status {
        Some(StatusName::Running) => 0..codec::PAUSED,
        Some(StatusName::Paused) => codec::PAUSED..codec::RESTS,
        _ => 0..codec::RESTS,
    };
    let floor = if *filter == Filter::default() {
        None // no row is passed over, so the limit bounds the scan
    } else {
        let floor = sqlx::query_as(statements.floor).bind(tenant.to_shared());
        let floor = match &filter.shard_key {
            Some(key) => floor.bind(key.clone()),
            None => floor.bind(status),
        };
        floor
            .bind(before)
            .bind(SCAN_ROWS - 1)
            .fetch_optional(pool)
            .await
            .map_err(|error| unavailable(&error))?
            .map(|(seq,): (i64,)| seq)
    };
    let after = filter.started_after.map(|at| codec::to_i64(at.0));
    let until = filter.started_before.map(|at| codec::to_i64(at.0));
    let rows = sqlx::query(statements.page)
        .bind(tenant.to_shared())
        .bind(status)
        .bind(before)
        .bind(floor.unwrap_or(0))
        .bind(filter.application.clone())
        .bind(filter.workflow.clone())
        .bind(after)
        .bind(until)
        .bind(i64::from(limit))
        .bind(rests.start)
        .bind(rests.end)
        .bind(filter.shard_key.clone())
        .fetch_all(pool)
        .await
        .map_err(|error| unavailable(&error))?;
    let mut page = summaries(rows.iter().map(summary_of), limit, |seq, _| Cursor(seq))?;
    if page.next.is_none() {
        page.next = floor.map(codec::to_u64).transpose()?.map(Cursor);
    }
    Ok(page)
}

/// `seq` and the summary of a row that begins with [`columns`].
fn summary_of(row: &SqliteRow) -> Result<(u64, Summary), Error> {
    let tenant: &str = column(row, 1)?;
    let id: &[u8] = column(row, 2)?;
    let (status, idle) = codec::status_and_rest(column(row, 7)?, column(row, 12)?)?;
    let summary = Summary {
        tenant: tenant.parse().map_err(codec::damaged)?,
        id: ExecutionId(Uuid::from_slice(id).map_err(codec::damaged)?),
        bucket: codec::to_u32(column(row, 3)?)?,
        application: column::<&str>(row, 4)?.into(),
        application_version: codec::to_u32(column(row, 5)?)?,
        workflow: column::<&str>(row, 6)?.into(),
        status,
        error: column(row, 8)?,
        started_at: codec::to_time(column(row, 9)?)?,
        closed_at: column::<Option<i64>>(row, 10)?
            .map(codec::to_time)
            .transpose()?,
        wake_at: column::<Option<i64>>(row, 11)?
            .map(codec::to_time)
            .transpose()?,
        idle,
        version: codec::to_u64(column(row, 13)?)?,
        shard_key: column::<Option<&str>>(row, 14)?.map(Into::into),
    };
    Ok((codec::to_u64(column(row, 0)?)?, summary))
}
