//! What people are asked: written with the executions that ask, listed over all of them.
//!
//! An execution changes few of its tasks in a commit, or many where a Map asks many
//! people; so each commit of one takes two statements at most, over a list in JSON.

use std::ops::Range;

use cascade_cdl::{ExecutionId, TaskId, TenantId};
use serde_json::{Value, json};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Connection as _, SqliteConnection};
use uuid::Uuid;

use super::super::search::SCAN_ROWS;
use super::super::{Cursor, Error, HumanTask, Page, TaskChanges, TaskFilter, codec, page_size};
use super::{column, unavailable};

/// Executions of an older release that are looked at together.
const UNLISTED: i64 = 100;

const REMOVE: &str = "DELETE FROM human_tasks WHERE tenant = ?1 AND id = ?2 \
     AND task IN (SELECT value FROM json_each(?3))";

/// `WHERE true` keeps the parser from reading `ON CONFLICT` as a part of a join.
const PUT: &str = "INSERT INTO human_tasks (tenant, id, task, application, workflow, path, \
     state, assignee, opened_at, deadline, escalated) \
     SELECT ?1, ?2, value ->> 'task', value ->> 'application', value ->> 'workflow', \
     value ->> 'path', value ->> 'state', value ->> 'assignee', value ->> 'opened_at', \
     value ->> 'deadline', value ->> 'escalated' FROM json_each(?3) WHERE true \
     ON CONFLICT (tenant, id, task) DO UPDATE SET path = excluded.path, \
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
        " AND number > ?3 AND number <= ?4 AND (?5 IS NULL OR application = ?5) \
         AND (?6 IS NULL OR workflow = ?6) AND (?7 IS NULL OR state = ?7) \
         ORDER BY number LIMIT ?8"
    };
}

const ALL: Statements = Statements {
    ceiling: "SELECT number FROM human_tasks INDEXED BY human_tasks_by_tenant \
              WHERE tenant = ?1 AND ?2 IS NULL AND number > ?3 ORDER BY number LIMIT 1 OFFSET ?4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM human_tasks INDEXED BY human_tasks_by_tenant WHERE tenant = ?1 AND ?2 IS NULL",
        filtered!()
    ),
};
const OF_ONE: Statements = Statements {
    ceiling: "SELECT number FROM human_tasks INDEXED BY human_tasks_by_assignee \
              WHERE tenant = ?1 AND assignee = ?2 AND number > ?3 \
              ORDER BY number LIMIT 1 OFFSET ?4",
    page: concat!(
        "SELECT ",
        columns!(),
        " FROM human_tasks INDEXED BY human_tasks_by_assignee \
         WHERE tenant = ?1 AND assignee = ?2",
        filtered!()
    ),
};

struct Statements {
    /// Where the scan of a page ends.
    ceiling: &'static str,
    page: &'static str,
}

/// Changes of an execution, as the statements take them.
pub(super) struct Changes {
    asked: Option<String>,
    gone: Option<String>,
}

impl Changes {
    /// `None` if there are none.
    pub(super) fn new(changes: &TaskChanges) -> Option<Self> {
        if changes.is_empty() {
            return None;
        }
        let gone: Vec<i64> = changes
            .gone
            .iter()
            .map(|task| codec::to_i64(task.0))
            .collect();
        Some(Self {
            asked: (!changes.asked.is_empty()).then(|| texts(&changes.asked)),
            gone: (!gone.is_empty()).then(|| json!(gone).to_string()),
        })
    }

    /// Makes them, in the transaction of their execution.
    pub(super) async fn write(
        &self,
        sqlite: &mut SqliteConnection,
        tenant: &TenantId,
        id: ExecutionId,
    ) -> Result<(), sqlx::Error> {
        for (statement, tasks) in [(REMOVE, &self.gone), (PUT, &self.asked)] {
            if let Some(tasks) = tasks {
                sqlx::query(statement)
                    .bind(tenant.to_shared())
                    .bind(id.0.as_bytes().to_vec())
                    .bind(tasks.clone())
                    .execute(&mut *sqlite)
                    .await?;
            }
        }
        Ok(())
    }
}

fn texts(asked: &[HumanTask]) -> String {
    let texts = asked.iter().map(|task| {
        json!({
            "task": codec::to_i64(task.task.0),
            "application": &*task.application,
            "workflow": &*task.workflow,
            "path": task.path,
            "state": &*task.state,
            "assignee": task.assignee,
            "opened_at": codec::to_i64(task.opened_at.0),
            "deadline": task.deadline.map(|at| codec::to_i64(at.0)),
            "escalated": task.escalated,
        })
    });
    Value::Array(texts.collect()).to_string()
}

pub(super) async fn list(
    pool: &SqlitePool,
    tenant: &TenantId,
    filter: &TaskFilter,
    after: Option<Cursor>,
    limit: u32,
) -> Result<Page<HumanTask>, Error> {
    let limit = page_size(limit);
    let after = after.map_or(0, |Cursor(number)| codec::to_i64(number));
    let statements = if filter.assignee.is_some() {
        OF_ONE
    } else {
        ALL
    };
    let narrows =
        filter.application.is_some() || filter.workflow.is_some() || filter.state.is_some();
    // Without a filter that passes rows over, the limit bounds the scan.
    let ceiling: Option<i64> = if narrows {
        let found: Option<(i64,)> = sqlx::query_as(statements.ceiling)
            .bind(tenant.to_shared())
            .bind(filter.assignee.clone())
            .bind(after)
            .bind(SCAN_ROWS - 1)
            .fetch_optional(pool)
            .await
            .map_err(|error| unavailable(&error))?;
        found.map(|(number,)| number)
    } else {
        None
    };
    let rows = sqlx::query(statements.page)
        .bind(tenant.to_shared())
        .bind(filter.assignee.clone())
        .bind(after)
        .bind(ceiling.unwrap_or(i64::MAX))
        .bind(filter.application.clone())
        .bind(filter.workflow.clone())
        .bind(filter.state.clone())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(|error| unavailable(&error))?;
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

fn task_of(row: &SqliteRow) -> Result<HumanTask, Error> {
    let tenant: &str = column(row, 1)?;
    let deadline: Option<i64> = column(row, 10)?;
    Ok(HumanTask {
        tenant: tenant.parse().map_err(codec::damaged)?,
        execution: execution_of(column(row, 2)?)?,
        task: TaskId(codec::to_u64(column(row, 3)?)?),
        application: column::<&str>(row, 4)?.into(),
        workflow: column::<&str>(row, 5)?.into(),
        path: column(row, 6)?,
        state: column::<&str>(row, 7)?.into(),
        assignee: column(row, 8)?,
        opened_at: codec::to_time(column(row, 9)?)?,
        deadline: deadline.map(codec::to_time).transpose()?,
        escalated: codec::to_u32(column(row, 11)?)?,
    })
}

fn execution_of(id: &[u8]) -> Result<ExecutionId, Error> {
    let id = Uuid::from_slice(id).map_err(codec::damaged)?;
    Ok(ExecutionId(id))
}

pub(super) async fn unlisted(
    pool: &SqlitePool,
    buckets: Range<u32>,
) -> Result<Vec<(TenantId, ExecutionId)>, Error> {
    let rows = sqlx::query(
        "SELECT tenant, id FROM unlisted_executions WHERE bucket >= ? AND bucket < ? LIMIT ?",
    )
    .bind(i64::from(buckets.start))
    .bind(i64::from(buckets.end))
    .bind(UNLISTED)
    .fetch_all(pool)
    .await
    .map_err(|error| unavailable(&error))?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let tenant: &str = column(row, 0)?;
        let tenant = tenant.parse().map_err(codec::damaged)?;
        keys.push((tenant, execution_of(column(row, 1)?)?));
    }
    Ok(keys)
}

pub(super) async fn add(
    sqlite: &mut SqliteConnection,
    tenant: &TenantId,
    id: ExecutionId,
    asked: Vec<HumanTask>,
) -> Result<(), Error> {
    let changes = TaskChanges {
        asked,
        gone: Vec::new(),
    };
    let write = async {
        let mut transaction = sqlite.begin().await?;
        if let Some(changes) = Changes::new(&changes) {
            changes.write(&mut transaction, tenant, id).await?;
        }
        sqlx::query("DELETE FROM unlisted_executions WHERE tenant = ? AND id = ?")
            .bind(tenant.to_shared())
            .bind(id.0.as_bytes().to_vec())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    };
    write.await.map_err(|error| unavailable(&error))
}
