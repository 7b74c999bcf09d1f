-- What people are asked now, over all executions: a row for each HumanTask that is open,
-- changed in the transaction that writes its execution. Who is asked comes from data, and
-- states may have any name: as bytes.
CREATE TABLE human_tasks (
    number      BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY, -- order of asking, cursor of lists
    task        BIGINT NOT NULL,                              -- within the execution
    opened_at   BIGINT NOT NULL,
    deadline    BIGINT,
    escalated   BIGINT NOT NULL,
    id          UUID NOT NULL,                                -- of the execution
    tenant      TEXT COLLATE "C" NOT NULL,
    application TEXT COLLATE "C" NOT NULL,
    workflow    TEXT COLLATE "C" NOT NULL,
    path        BYTEA NOT NULL,
    state       BYTEA NOT NULL,
    assignee    BYTEA NOT NULL,
    -- Changes a task, or removes it; one is never there twice.
    PRIMARY KEY (id, tenant, task)
);
-- Lists a tenant's, the oldest first.
CREATE INDEX human_tasks_by_tenant ON human_tasks (tenant, number);
-- Lists those of one person. By a digest, since a name may be longer than an index takes.
CREATE INDEX human_tasks_by_assignee ON human_tasks (tenant, sha256(assignee), number);

ALTER TABLE human_tasks ENABLE ROW LEVEL SECURITY;
ALTER TABLE human_tasks FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON human_tasks
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
