//! Lists of executions, as they are meant.

use cascade_cdl::Tags;

use super::super::{Filter, Page, Summary, page_size, search};

/// Whether a list with this filter shows an execution.
pub(super) fn shows(filter: &Filter, summary: &Summary) -> bool {
    let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|it| it == name);
    let none = Tags::default();
    let tags = summary.tags.as_deref().unwrap_or(&none);
    is(&filter.application, &summary.application)
        && is(&filter.workflow, &summary.workflow)
        && filter
            .shard_key
            .as_deref()
            .is_none_or(|key| summary.shard_key.as_deref() == Some(key))
        && filter.status.is_none_or(|status| status == summary.status)
        && (!filter.open || summary.status.is_open())
        && filter
            .started_after
            .is_none_or(|at| summary.started_at > at)
        && filter
            .started_before
            .is_none_or(|at| summary.started_at < at)
        && filter
            .closed_after
            .is_none_or(|at| summary.closed_at.is_some_and(|closed| closed > at))
        && filter
            .closed_before
            .is_none_or(|at| summary.closed_at.is_some_and(|closed| closed < at))
        && filter.tags.iter().all(|test| search::fits(test, tags))
}

/// One page of rows that come with the cursor after them.
pub(super) fn page<'a, C: Copy>(
    rows: impl Iterator<Item = (C, &'a Summary)>,
    limit: u32,
) -> Page<Summary, C> {
    let limit = usize::try_from(page_size(limit)).unwrap_or(usize::MAX);
    let rows: Vec<_> = rows.take(limit).collect();
    let next = rows.last().map(|(cursor, _)| *cursor);
    Page {
        next: next.filter(|_| rows.len() == limit),
        items: rows.into_iter().map(|(_, row)| row.clone()).collect(),
    }
}
