//! Queries on executions. They see every commit that was acknowledged before they began.

use std::ops::Range;

use cascade_cdl::{Event, ExecutionId, TenantId};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::super::{
    Cursor, Error, Excerpt, Filter, Page, StatusName, Stored, Summary, codec, page_size, summaries,
};
use super::connect::{Failure, Tx};
use super::{column, homes};

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
        " AND seq < $3 AND seq >= $4 AND ($5::text IS NULL OR application = $5) \
         AND ($6::text IS NULL OR workflow = $6) AND ($7::bigint IS NULL OR started_at > $7) \
         AND ($8::bigint IS NULL OR started_at < $8) AND idle >= $10::bigint AND idle < $11::bigint \
         AND ($12::bytea IS NULL OR shard_key = $12) ORDER BY seq DESC LIMIT $9"
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

/// Lists that no rare status narrows: all of a tenant, newest first.
const LIST: Statements = Statements {
    floor: "SELECT seq FROM executions \
            WHERE tenant = $1 AND ($2::smallint IS NULL OR TRUE) AND seq < $3 \
            ORDER BY seq DESC LIMIT 1 OFFSET $4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM executions WHERE tenant = $1 AND ($2::smallint IS NULL OR status = $2)",
        filtered!()
    ),
};
/// Lists of one status other than completed.
const LIST_STATUS: Statements = Statements {
    floor: "SELECT seq FROM executions \
            WHERE tenant = $1 AND status = $2::smallint AND status <> 1 AND seq < $3 \
            ORDER BY seq DESC LIMIT 1 OFFSET $4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM executions WHERE tenant = $1 AND status = $2::smallint AND status <> 1",
        filtered!()
    ),
};

/// Lists of one shard key: few of a tenant's executions.
const LIST_KEY: Statements = Statements {
    floor: "SELECT seq FROM executions \
            WHERE tenant = $1 AND shard_key = $2::bytea AND seq < $3 \
            ORDER BY seq DESC LIMIT 1 OFFSET $4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM executions WHERE tenant = $1 AND shard_key = $12::bytea \
         AND ($2::smallint IS NULL OR status = $2)",
        filtered!()
    ),
};

struct Statements {
    /// Where the scan of a page ends.
    floor: &'static str,
    page: &'static str,
}

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

pub(super) async fn list(
    mut tx: Tx,
    tenant: &TenantId,
    filter: &Filter,
    before: Option<Cursor>,
    limit: u32,
) -> Result<Page<Summary>, Failure> {
    let limit = page_size(limit);
    let before = before.map_or(i64::MAX, |Cursor(seq)| codec::to_i64(seq));
    let open = filter.open.then_some(StatusName::Running);
    let status = filter.status.or(open);
    let statements = match (&filter.shard_key, status) {
        (Some(_), _) => LIST_KEY,
        (None, None | Some(StatusName::Completed)) => LIST,
        (None, Some(_)) => LIST_STATUS,
    };
    let shard_key = filter.shard_key.as_deref().map(str::as_bytes);
    let status = status
        .map(|status| i16::try_from(codec::status_code(status)).expect("codes are below ten"));
    let rests = match filter.status {
        Some(StatusName::Running) => 0..codec::PAUSED,
        Some(StatusName::Paused) => codec::PAUSED..codec::RESTS,
        _ => 0..codec::RESTS,
    };
    let floor = if *filter == Filter::default() {
        None // no row is passed over, so the limit bounds the scan
    } else {
        let floor = sqlx::query_as(statements.floor).bind(tenant.as_str());
        let floor = match shard_key {
            Some(key) => floor.bind(key),
            None => floor.bind(status),
        };
        floor
            .bind(before)
            .bind(SCAN_ROWS - 1)
            .fetch_optional(&mut *tx)
            .await?
            .map(|(seq,): (i64,)| seq)
    };
    let after = filter.started_after.map(|at| codec::to_i64(at.0));
    let until = filter.started_before.map(|at| codec::to_i64(at.0));
    let rows = sqlx::query(statements.page)
        .bind(tenant.as_str())
        .bind(status)
        .bind(before)
        .bind(floor.unwrap_or(0))
        .bind(filter.application.as_deref())
        .bind(filter.workflow.as_deref())
        .bind(after)
        .bind(until)
        .bind(i64::from(limit))
        .bind(rests.start)
        .bind(rests.end)
        .bind(shard_key)
        .fetch_all(&mut *tx)
        .await?;
    let mut page = summaries(rows.iter().map(summary_of), limit, |seq, _| Cursor(seq))?;
    if page.next.is_none() {
        page.next = floor.map(codec::to_u64).transpose()?.map(Cursor);
    }
    Ok(page)
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

/// Statements that must go by other indexes, and which.
#[cfg(test)]
pub(super) const ORDERED: [(&str, &str); 6] = [
    (LIST.floor, "executions_by_tenant"),
    (LIST.page, "executions_by_tenant"),
    (LIST_STATUS.floor, "executions_by_status"),
    (LIST_STATUS.page, "executions_by_status"),
    (LIST_KEY.floor, "executions_by_shard_key"),
    (LIST_KEY.page, "executions_by_shard_key"),
];
