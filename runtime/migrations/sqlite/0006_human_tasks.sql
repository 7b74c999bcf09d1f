-- What people are asked now, over all executions: a row for each HumanTask that is open,
-- changed in the transaction that writes its execution.
CREATE TABLE human_tasks (
    number      INTEGER PRIMARY KEY, -- order of asking, cursor of lists
    tenant      TEXT NOT NULL,
    id          BLOB NOT NULL,       -- of the execution
    task        INTEGER NOT NULL,    -- within the execution
    application TEXT NOT NULL,
    workflow    TEXT NOT NULL,
    path        TEXT NOT NULL,
    state       TEXT NOT NULL,
    assignee    TEXT NOT NULL,
    opened_at   INTEGER NOT NULL,
    deadline    INTEGER,
    escalated   INTEGER NOT NULL
) STRICT;
-- Changes a task, or removes it; one is never there twice.
CREATE UNIQUE INDEX human_tasks_by_execution ON human_tasks (tenant, id, task);
-- Lists a tenant's, the oldest first: the rowid `number` ends each entry.
CREATE INDEX human_tasks_by_tenant ON human_tasks (tenant);
-- Lists those of one person.
CREATE INDEX human_tasks_by_assignee ON human_tasks (tenant, assignee);

-- Executions that were open before there was this list: what they ask is written when
-- their shard starts next, and then they are gone from here.
CREATE TABLE unlisted_executions (
    tenant TEXT NOT NULL,
    id     BLOB NOT NULL,
    bucket INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
-- Finds those of a shard.
CREATE INDEX unlisted_executions_by_bucket ON unlisted_executions (bucket);
INSERT INTO unlisted_executions (tenant, id, bucket)
    SELECT tenant, id, bucket FROM executions WHERE status = 0;
