//! Queries on executions. They run on readers and see every commit that was
//! acknowledged before they began.

use std::ops::Range;

use cascade_cdl::{Event, ExecutionId, TenantId};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Sqlite, SqliteConnection};
use uuid::Uuid;

use super::super::search::{Bind, Dialect, Search, Statement, cursor};
use super::super::{
    Counts, Cursor, Error, Excerpt, Filter, ListCursor, Page, Stored, Summary, codec, page_size,
    summaries,
};
use super::{column, unavailable};

/// The columns of a [`Summary`], as [`summary_of`] reads them.
macro_rules! columns {
    () => {
        "seq, tenant, id, bucket, application, application_version, workflow, status, error, \
         started_at, closed_at, wake_at, idle, version, shard_key, tags"
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
    let first = codec::to_u64(column(&row, 16)?)?;
    let snapshot: Option<&[u8]> = column(&row, 17)?;
    let history: &[u8] = column(&row, 18)?;
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

/// The columns of a [`Summary`] of a list.
const LISTED: &str = "e.seq, e.tenant, e.id, e.bucket, e.application, e.application_version, \
     e.workflow, e.status, e.error, e.started_at, e.closed_at, e.wake_at, e.idle, e.version, \
     e.shard_key, e.tags";

pub(super) async fn list(
    pool: &SqlitePool,
    tenant: &TenantId,
    filter: &Filter,
    before: Option<ListCursor>,
    limit: u32,
) -> Result<Page<Summary, ListCursor>, Error> {
    let limit = page_size(limit);
    let search = search(tenant, filter, before);
    let place = |seq, summary: &Summary| cursor(filter, seq, summary);
    let (items, next) = (Vec::new(), None);
    let mut page = Page { items, next };
    for floor in search.floors(limit) {
        let floor = match floor {
            Some(floor) => asked(floor).fetch_optional(pool).await,
            None => Ok(None),
        };
        let floor = floor.map_err(|error| unavailable(&error))?;
        let floor = floor.as_ref().map(cursor_of).transpose()?;
        let rows = asked(search.page(LISTED, floor, limit)).fetch_all(pool);
        let rows = rows.await.map_err(|error| unavailable(&error))?;
        page = summaries(rows.iter().map(summary_of), limit, place)?;
        if page.next.is_some() {
            break;
        }
        page.next = floor.map_or_else(|| search.rest(), |floor| Some(search.place(floor)));
        if floor.is_none() {
            break;
        }
    }
    Ok(page)
}

pub(super) async fn count(
    pool: &SqlitePool,
    tenant: &TenantId,
    filter: &Filter,
) -> Result<Counts, Error> {
    let mut rows = Vec::new();
    for count in Search::counts(tenant.as_str(), filter, Dialect::Sqlite) {
        let part = asked(count).fetch_all(pool).await;
        rows.extend(part.map_err(|error| unavailable(&error))?);
    }
    let mut counted = Vec::with_capacity(rows.len());
    for row in &rows {
        let (status, _) = codec::status_and_rest(column(row, 2)?, column(row, 3)?)?;
        let (fit, seen) = (
            codec::to_u64(column(row, 4)?)?,
            codec::to_u64(column(row, 5)?)?,
        );
        counted.push((column(row, 0)?, column(row, 1)?, status, fit, seen));
    }
    Ok(Counts::of(counted.into_iter()))
}

pub(super) fn search<'f>(
    tenant: &'f TenantId,
    filter: &'f Filter,
    before: Option<ListCursor>,
) -> Search<'f> {
    Search::new(tenant.as_str(), filter, before, Dialect::Sqlite)
}

/// A statement with its values bound.
pub(super) fn asked<'q>(statement: Statement) -> Query<'q, Sqlite, SqliteArguments> {
    let mut query = sqlx::query(statement.sql);
    for value in statement.values {
        query = match value {
            Bind::Int(value) => query.bind(value),
            Bind::Text(value) => query.bind(value),
            Bind::Bytes(value) => query.bind(value),
        };
    }
    query
}

fn cursor_of(row: &SqliteRow) -> Result<ListCursor, Error> {
    Ok(ListCursor {
        at: codec::to_u64(column(row, 0)?)?,
        seq: codec::to_u64(column(row, 1)?)?,
    })
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
        tags: codec::decode_tags(column(row, 15)?)?,
    };
    Ok((codec::to_u64(column(row, 0)?)?, summary))
}
