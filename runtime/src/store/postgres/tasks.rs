//! What people are asked: written with the executions that ask, listed over all of them.

use std::collections::HashMap;

use cascade_cdl::{ExecutionId, TaskId, TenantId};
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::super::group::Row;
use super::super::search::SCAN_ROWS;
use super::super::{Cursor, Error, HumanTask, Page, TaskFilter, codec, page_size};
use super::connect::{Failure, Tx};
use super::{column, text};

const REMOVE: &str = "DELETE FROM human_tasks AS old \
    USING unnest($1::text[], $2::uuid[], $3::bigint[]) AS gone (tenant, id, task) \
    WHERE old.id = gone.id AND old.tenant || '' = gone.tenant AND old.task = gone.task";

const PUT: &str = "INSERT INTO human_tasks (tenant, id, task, application, workflow, path, \
        state, assignee, opened_at, deadline, escalated) \
    SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], \
        $6::bytea[], $7::bytea[], $8::bytea[], $9::bigint[], $10::bigint[], $11::bigint[]) \
    ON CONFLICT (id, tenant, task) DO UPDATE SET path = excluded.path, \
        state = excluded.state, assignee = excluded.assignee, deadline = excluded.deadline, \
        escalated = excluded.escalated";

macro_rules! columns {
    () => {
        "number, tenant, id, task, application, workflow, path, state, assignee, opened_at, \
         deadline, escalated"
    };
}

/// The filters and bounds of a list, after the terms that choose the index.
macro_rules! filtered {
    () => {
        " AND number > $3 AND number <= $4 AND ($5::text IS NULL OR application = $5) \
         AND ($6::text IS NULL OR workflow = $6) AND ($7::bytea IS NULL OR state = $7) \
         ORDER BY number LIMIT $8"
    };
}

const ALL: Statements = Statements {
    ceiling: "SELECT number FROM human_tasks \
              WHERE tenant = $1 AND $2::bytea IS NULL AND number > $3 \
              ORDER BY number LIMIT 1 OFFSET $4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM human_tasks WHERE tenant = $1 AND $2::bytea IS NULL",
        filtered!()
    ),
};
const OF_ONE: Statements = Statements {
    ceiling: "SELECT number FROM human_tasks \
              WHERE tenant = $1 AND sha256(assignee) = sha256($2::bytea) AND assignee = $2 \
              AND number > $3 ORDER BY number LIMIT 1 OFFSET $4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM human_tasks WHERE tenant = $1 AND sha256(assignee) = sha256($2::bytea) \
         AND assignee = $2",
        filtered!()
    ),
};

struct Statements {
    /// Where the scan of a page ends.
    ceiling: &'static str,
    page: &'static str,
}

/// Makes the changes that come with a layer of rows, in their transaction.
pub(super) async fn write(connection: &mut PgConnection, rows: &[&Row]) -> Result<(), Failure> {
    let gone = rows.iter().flat_map(|row| {
        let (tenant, id) = row.key();
        let tasks = row.tasks.gone.iter();
        tasks.map(move |task| (tenant.as_str(), id.0, codec::to_i64(task.0)))
    });
    let gone: Vec<(&str, Uuid, i64)> = gone.collect();
    if !gone.is_empty() {
        sqlx::query(REMOVE)
            .bind(gone.iter().map(|gone| gone.0).collect::<Vec<_>>())
            .bind(gone.iter().map(|gone| gone.1).collect::<Vec<_>>())
            .bind(gone.iter().map(|gone| gone.2).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
    }
    put(connection, rows.iter().flat_map(|row| &row.tasks.asked)).await
}

/// Puts what is asked; the last of a task counts, in the place of the first.
async fn put<'t>(
    connection: &mut PgConnection,
    asked: impl Iterator<Item = &'t HumanTask>,
) -> Result<(), Failure> {
    let mut tasks = Vec::<&HumanTask>::new();
    let mut places = HashMap::new();
    for task in asked {
        let place = places.entry((&task.tenant, task.execution, task.task));
        let place = *place.or_insert(tasks.len());
        match tasks.get_mut(place) {
            Some(known) => *known = task,
            None => tasks.push(task),
        }
    }
    if tasks.is_empty() {
        return Ok(());
    }
    sqlx::query(PUT)
        .bind(values(&tasks, |task| task.tenant.as_str()))
        .bind(values(&tasks, |task| task.execution.0))
        .bind(values(&tasks, |task| codec::to_i64(task.task.0)))
        .bind(values(&tasks, |task| &*task.application))
        .bind(values(&tasks, |task| &*task.workflow))
        .bind(values(&tasks, |task| task.path.as_bytes()))
        .bind(values(&tasks, |task| task.state.as_bytes()))
        .bind(values(&tasks, |task| task.assignee.as_bytes()))
        .bind(values(&tasks, |task| codec::to_i64(task.opened_at.0)))
        .bind(values(&tasks, |task| {
            task.deadline.map(|at| codec::to_i64(at.0))
        }))
        .bind(values(&tasks, |task| i64::from(task.escalated)))
        .execute(connection)
        .await?;
    Ok(())
}

/// One column of tasks, as an array.
fn values<'t, T>(tasks: &[&'t HumanTask], value: impl Fn(&'t HumanTask) -> T) -> Vec<T> {
    tasks.iter().map(|task| value(task)).collect()
}

/// Puts what an execution asks.
pub(super) async fn add(mut tx: Tx, asked: &[HumanTask]) -> Result<(Tx, ()), Failure> {
    put(&mut tx, asked.iter()).await?;
    Ok((tx, ()))
}

pub(super) async fn list(
    mut tx: Tx,
    tenant: &TenantId,
    filter: &TaskFilter,
    after: Option<Cursor>,
    limit: u32,
) -> Result<Page<HumanTask>, Failure> {
    let limit = page_size(limit);
    let after = after.map_or(0, |Cursor(number)| codec::to_i64(number));
    let assignee = filter.assignee.as_deref().map(str::as_bytes);
    let statements = if assignee.is_some() { OF_ONE } else { ALL };
    let narrows =
        filter.application.is_some() || filter.workflow.is_some() || filter.state.is_some();
    // Without a filter that passes rows over, the limit bounds the scan.
    let ceiling: Option<i64> = if narrows {
        let found: Option<(i64,)> = sqlx::query_as(statements.ceiling)
            .bind(tenant.as_str())
            .bind(assignee)
            .bind(after)
            .bind(SCAN_ROWS - 1)
            .fetch_optional(&mut *tx)
            .await?;
        found.map(|(number,)| number)
    } else {
        None
    };
    let rows = sqlx::query(statements.page)
        .bind(tenant.as_str())
        .bind(assignee)
        .bind(after)
        .bind(ceiling.unwrap_or(i64::MAX))
        .bind(filter.application.as_deref())
        .bind(filter.workflow.as_deref())
        .bind(filter.state.as_deref().map(str::as_bytes))
        .bind(i64::from(limit))
        .fetch_all(&mut *tx)
        .await?;
    let mut items = Vec::with_capacity(rows.len());
    let mut last = None;
    for row in &rows {
        last = Some(Cursor(codec::to_u64(column(row, 0)?)?));
        items.push(task_of(row)?);
    }
    let full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let scanned = ceiling.map(codec::to_u64).transpose()?.map(Cursor);
    Ok(Page {
        items,
        next: if full { last } else { scanned },
    })
}

fn task_of(row: &PgRow) -> Result<HumanTask, Error> {
    let deadline: Option<i64> = column(row, 10)?;
    Ok(HumanTask {
        tenant: column::<&str>(row, 1)?.parse().map_err(codec::damaged)?,
        execution: ExecutionId(column::<Uuid>(row, 2)?),
        task: TaskId(codec::to_u64(column(row, 3)?)?),
        application: column::<&str>(row, 4)?.into(),
        workflow: column::<&str>(row, 5)?.into(),
        path: text(row, 6)?,
        state: text(row, 7)?.into(),
        assignee: text(row, 8)?,
        opened_at: codec::to_time(column(row, 9)?)?,
        deadline: deadline.map(codec::to_time).transpose()?,
        escalated: codec::to_u32(column(row, 11)?)?,
    })
}
