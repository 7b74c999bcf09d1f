-- Lists of executions in the order of starts, and what executions are found by.
--
-- Of a database with executions, the five indexes on `executions` are made ahead of this
-- (`store/postgres/ahead.rs`) while others write, and are there already: 24 s for ten million
-- executions, and 0.9 GB. What is left locked the table for 0.1 s.
--
-- The indexes that had another order go at once, since no release has had them: each would be
-- one more entry in every commit. Until the last server of the version before has gone, its lists
-- look through all rows of a tenant; its commits are as they were.

-- Labels and attributes, as JSON; NULL of most. To be shown: searches go by `execution_tags`.
ALTER TABLE executions ADD COLUMN tags BYTEA;

DROP INDEX executions_by_tenant;
DROP INDEX executions_by_status;
DROP INDEX executions_by_shard_key;
-- Lists a tenant, those started last first.
CREATE INDEX IF NOT EXISTS executions_by_start ON executions (tenant, started_at, seq);
-- Lists a tenant by a status that is rare in the long run. Completed ones, the
-- mass, never enter it, so it costs a short execution nothing.
CREATE INDEX IF NOT EXISTS executions_by_status_start
    ON executions (tenant, status, started_at, seq) WHERE status <> 1;
-- Lists the executions of one key. Those without a key never enter it.
CREATE INDEX IF NOT EXISTS executions_by_key
    ON executions (tenant, shard_key, started_at, seq) WHERE shard_key IS NOT NULL;
-- Lists those of one workflow, however many there are of others.
CREATE INDEX IF NOT EXISTS executions_by_workflow
    ON executions (tenant, workflow, started_at, seq);
-- Lists what has ended in some time and was started long before: see search.rs. What takes
-- less than a minute never enters it.
CREATE INDEX IF NOT EXISTS executions_long_by_end ON executions (tenant, closed_at, seq)
    WHERE closed_at - started_at >= 60000;

-- Labels and attributes one by one, written in the transaction of their execution. Those
-- without any never enter it.
CREATE TABLE execution_tags (
    started_at BIGINT NOT NULL,           -- of the execution, as are these
    seq        BIGINT NOT NULL,
    id         UUID NOT NULL,
    tenant     TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL, -- which kind, and its name
    entry      BYTEA NOT NULL,            -- search.rs: the name, and then the value, in the order of values
    -- What one execution has.
    PRIMARY KEY (id, tenant, name)
) WITH (
    -- As `executions`.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02
);
-- Lists those with one value. The name is in the value, so that nothing but this list can go
-- by this index, nor this list by another, also while the planner knows nothing of the table.
CREATE INDEX execution_tags_by_value ON execution_tags (tenant, entry, started_at, seq);
-- Lists those that have it, and looks at the values on the way.
CREATE INDEX execution_tags_by_name ON execution_tags (tenant, name, started_at, seq)
    INCLUDE (entry);

ALTER TABLE execution_tags ENABLE ROW LEVEL SECURITY;
ALTER TABLE execution_tags FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON execution_tags USING (
    current_setting('cascade.tenant', true) = tenant
    OR tenant IN (SELECT unnest(string_to_array(current_setting('cascade.tenant', true), ','))));
