-- What an execution is found by, labels and attributes, as JSON; NULL of most. Read to be
-- shown only: searches go by `execution_tags`.
ALTER TABLE executions ADD COLUMN tags BYTEA;

-- Lists are in the order of starts. The indexes that had another order go at once: no
-- release has had them.
DROP INDEX executions_by_tenant;
DROP INDEX executions_by_status;
DROP INDEX executions_by_shard_key;
-- Lists a tenant, those started last first.
CREATE INDEX executions_by_start ON executions (tenant, started_at, seq);
-- Lists a tenant by a status that is rare in the long run. Completed ones, the
-- mass, never enter it, so it costs a short execution nothing.
CREATE INDEX executions_by_status_start ON executions (tenant, status, started_at, seq)
    WHERE status <> 1;
-- Lists the executions of one key. Those without a key never enter it.
CREATE INDEX executions_by_key ON executions (tenant, shard_key, started_at, seq)
    WHERE shard_key IS NOT NULL;
-- Lists those of one workflow, however many there are of others.
CREATE INDEX executions_by_workflow ON executions (tenant, workflow, started_at, seq);
-- Lists what has ended in some time.
CREATE INDEX executions_by_end ON executions (tenant, closed_at, seq)
    WHERE closed_at IS NOT NULL;

-- Labels and attributes one by one, written in the transaction of their execution. Those
-- without any never enter it.
CREATE TABLE execution_tags (
    started_at BIGINT NOT NULL,           -- of the execution, as are these
    seq        BIGINT NOT NULL,
    id         UUID NOT NULL,
    tenant     TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL, -- which kind, and its name
    value      BYTEA NOT NULL,            -- search.rs: in the order of values
    -- What one execution has.
    PRIMARY KEY (id, tenant, name)
);
-- Lists those with one value. By the name in other words, so that no other list goes by it,
-- nor this one by another index, also while the planner knows nothing of the table.
CREATE INDEX execution_tags_by_value
    ON execution_tags (tenant, (name || ''), value, started_at, seq);
-- Lists those that have it, and looks at the values on the way.
CREATE INDEX execution_tags_by_name ON execution_tags (tenant, name, started_at, seq)
    INCLUDE (value);

ALTER TABLE execution_tags ENABLE ROW LEVEL SECURITY;
ALTER TABLE execution_tags FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON execution_tags
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
