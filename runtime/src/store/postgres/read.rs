//! Queries on executions. They see every commit that was acknowledged before they began.

use std::ops::Range;

use cascade_cdl::{Event, ExecutionId, TenantId};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres};
use uuid::Uuid;

use super::super::search::{Bind, Dialect, Search, Statement, cursor};
use super::super::{
    Counts, Cursor, Error, Excerpt, Filter, ListCursor, Page, Stored, Summary, codec, page_size,
    summaries,
};
use super::connect::{Failure, Tx};
use super::{column, homes};

/// The columns of a [`Summary`], as [`summary_of`] reads them.
macro_rules! columns {
    () => {
        "seq, tenant, id, bucket, application, application_version, workflow, status, error, \
         started_at, closed_at, wake_at, idle, version, shard_key, tags"
    };
}

/// By the id: why the tenant is written so, `commit.rs` says.
const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    ", tail_first, snapshot, history FROM executions WHERE id = $2 AND tenant || '' = $1"
);
const SUMMARY: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM executions WHERE id = $2 AND tenant || '' = $1"
);
/// Open executions of one bucket, and of the buckets after it: together what
/// `(bucket, seq) > ($1, $2)` says, in the order of the index.
const OPEN_IN_BUCKET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM {table} WHERE status = 0 AND bucket = $1 AND seq > $2"
);
const OPEN_IN_BUCKETS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM {table} WHERE status = 0 AND bucket >= $1 AND bucket < $2"
);
const BY_NUMBER: &str = "ORDER BY seq LIMIT $3";
const BY_BUCKET: &str = "ORDER BY bucket, seq LIMIT $3";
/// The next chunk of a history, or the row's own tail after the last one. In
/// one statement, so that events that move from one to the other meanwhile are
/// seen once; and the tail is not read before its turn.
const HISTORY: &str = "\
    SELECT * FROM (SELECT last_seq, NULL::bigint, events FROM history_chunks \
        WHERE tenant = $1 AND id = $2 AND last_seq > $3 ORDER BY last_seq LIMIT 1) AS chunk \
    UNION ALL \
    SELECT version, tail_first, history FROM executions \
    WHERE id = $2 AND tenant || '' = $1 AND version > $3 AND NOT EXISTS \
        (SELECT 1 FROM history_chunks WHERE tenant = $1 AND id = $2 AND last_seq > $3) \
        AND octet_length(history) > 0";

pub(super) async fn ping(mut tx: Tx) -> Result<(), Failure> {
    sqlx::query("SELECT 1").execute(&mut *tx).await?;
    Ok(())
}

pub(super) async fn load(
    mut tx: Tx,
    tenant: &TenantId,
    id: ExecutionId,
) -> Result<Option<Stored>, Failure> {
    let row = sqlx::query(LOAD)
        .bind(tenant.as_str())
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await?;
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
    mut tx: Tx,
    tenant: &TenantId,
    id: ExecutionId,
) -> Result<Option<Summary>, Failure> {
    let row = sqlx::query(SUMMARY)
        .bind(tenant.as_str())
        .bind(id.0)
        .fetch_optional(&mut *tx)
        .await?;
    let summary = row.map(|row| summary_of(&row).map(|(_, summary)| summary));
    Ok(summary.transpose()?)
}

pub(super) async fn open_executions(
    mut tx: Tx,
    buckets: Range<u32>,
    after: Option<Cursor>,
    limit: u32,
) -> Result<Page<Summary>, Failure> {
    let limit = page_size(limit);
    let schemas = homes::schemas(&mut tx).await?;
    // Numbers are of one sequence, wherever a row is.
    let everywhere =
        |query, order| AssertSqlSafe(homes::everywhere(query, order, "executions", &schemas));
    let code = |bucket: u32| i32::try_from(bucket).unwrap_or(i32::MAX);
    let mut rows = Vec::new();
    let mut first = buckets.start;
    if let Some(cursor) = after {
        let (bucket, seq) = codec::bucket_and_seq(cursor);
        first = bucket + 1;
        rows = sqlx::query(everywhere(OPEN_IN_BUCKET, BY_NUMBER))
            .bind(code(bucket))
            .bind(codec::to_i64(seq))
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
    }
    let left = i64::from(limit) - codec::to_i64(rows.len() as u64);
    if left > 0 {
        let more = sqlx::query(everywhere(OPEN_IN_BUCKETS, BY_BUCKET))
            .bind(code(first))
            .bind(code(buckets.end))
            .bind(left)
            .fetch_all(&mut *tx)
            .await?;
        rows.extend(more);
    }
    let page = summaries(rows.iter().map(summary_of), limit, |seq, summary| {
        codec::bucket_cursor(summary.bucket, seq)
    });
    Ok(page?)
}

/// Row by row, since a row may hold a megabyte as well as a hundred bytes.
pub(super) async fn history(
    mut tx: Tx,
    tenant: &TenantId,
    id: ExecutionId,
    after: u64,
    mut excerpt: Excerpt,
) -> Result<Vec<Event>, Failure> {
    let mut seen = after;
    while excerpt.has_room() {
        let row = sqlx::query(HISTORY)
            .bind(tenant.as_str())
            .bind(id.0)
            .bind(codec::to_i64(seen))
            .fetch_optional(&mut *tx)
            .await?;
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
    mut tx: Tx,
    tenant: &TenantId,
    filter: &Filter,
    before: Option<ListCursor>,
    limit: u32,
) -> Result<Page<Summary, ListCursor>, Failure> {
    let limit = page_size(limit);
    let search = search(tenant, filter, before);
    let place = |seq, summary: &Summary| cursor(filter, seq, summary);
    let (items, next) = (Vec::new(), None);
    let mut page = Page { items, next };
    for floor in search.floors(limit) {
        let floor = match floor {
            Some(floor) => asked(floor).fetch_optional(&mut *tx).await?,
            None => None,
        };
        let floor = floor.as_ref().map(cursor_of).transpose()?;
        let rows = asked(search.page(LISTED, floor, limit));
        let rows = rows.fetch_all(&mut *tx).await?;
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
    mut tx: Tx,
    tenant: &TenantId,
    filter: &Filter,
) -> Result<Counts, Failure> {
    let mut rows = Vec::new();
    for count in Search::counts(tenant.as_str(), filter, Dialect::Postgres) {
        rows.extend(asked(count).fetch_all(&mut *tx).await?);
    }
    let mut counted = Vec::with_capacity(rows.len());
    for row in &rows {
        let (code, rest): (i16, i16) = (column(row, 2)?, column(row, 3)?);
        let (status, _) = codec::status_and_rest(code.into(), rest.into())?;
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
    Search::new(tenant.as_str(), filter, before, Dialect::Postgres)
}

/// A statement with its values bound.
pub(super) fn asked<'q>(statement: Statement) -> Query<'q, Postgres, PgArguments> {
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

fn cursor_of(row: &PgRow) -> Result<ListCursor, Error> {
    Ok(ListCursor {
        at: codec::to_u64(column(row, 0)?)?,
        seq: codec::to_u64(column(row, 1)?)?,
    })
}

/// `seq` and the summary of a row that begins with [`columns`].
fn summary_of(row: &PgRow) -> Result<(u64, Summary), Error> {
    let time = |index| -> Result<_, Error> {
        let time: Option<i64> = column(row, index)?;
        time.map(codec::to_time).transpose()
    };
    let code: i16 = column(row, 7)?;
    let rest: i16 = column(row, 12)?;
    let (status, idle) = codec::status_and_rest(code.into(), rest.into())?;
    let bucket: i32 = column(row, 3)?;
    let error: Option<Vec<u8>> = column(row, 8)?;
    let shard_key: Option<&[u8]> = column(row, 14)?;
    let shard_key = shard_key.map(std::str::from_utf8).transpose();
    let shard_key = shard_key.map_err(codec::damaged)?;
    let summary = Summary {
        tenant: column::<&str>(row, 1)?.parse().map_err(codec::damaged)?,
        id: ExecutionId(column::<Uuid>(row, 2)?),
        bucket: codec::to_u32(bucket.into())?,
        application: column::<&str>(row, 4)?.into(),
        application_version: codec::to_u32(column(row, 5)?)?,
        workflow: column::<&str>(row, 6)?.into(),
        status,
        error: error
            .map(String::from_utf8)
            .transpose()
            .map_err(codec::damaged)?,
        started_at: codec::to_time(column(row, 9)?)?,
        closed_at: time(10)?,
        wake_at: time(11)?,
        idle,
        version: codec::to_u64(column(row, 13)?)?,
        shard_key: shard_key.map(Into::into),
        tags: codec::decode_tags(column(row, 15)?)?,
    };
    Ok((codec::to_u64(column(row, 0)?)?, summary))
}

/// Statements that must find rows by their ids, however large the table is.
#[cfg(test)]
pub(super) const PLANNED: [&str; 3] = [LOAD, SUMMARY, HISTORY];

/// Statements that must go by `executions_open`, with what follows them.
#[cfg(test)]
pub(super) const OPEN: [(&str, &str); 2] =
    [(OPEN_IN_BUCKET, BY_NUMBER), (OPEN_IN_BUCKETS, BY_BUCKET)];
