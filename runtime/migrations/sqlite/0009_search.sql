-- Lists of executions in the order of starts, and what executions are found by.
--
-- Only one process has the file, and it serves nobody before this is done: about two seconds
-- a million executions.

-- Labels and attributes, as JSON; NULL of most. To be shown: searches go by `execution_tags`.
ALTER TABLE executions ADD COLUMN tags TEXT;

-- Lists are in the order of starts: the rowid `seq` ends each entry.
DROP INDEX executions_by_tenant;
DROP INDEX executions_by_status;
DROP INDEX executions_by_shard_key;
-- Lists a tenant, those started last first.
CREATE INDEX executions_by_start ON executions (tenant, started_at);
-- Lists a tenant by a status that is rare in the long run. Completed ones, the
-- mass, never enter it, so it costs a short execution nothing.
CREATE INDEX executions_by_status_start ON executions (tenant, status, started_at)
    WHERE status <> 1;
-- Lists the executions of one key. Those without a key never enter it.
CREATE INDEX executions_by_key ON executions (tenant, shard_key, started_at)
    WHERE shard_key IS NOT NULL;
-- Lists those of one workflow, however many there are of others.
CREATE INDEX executions_by_workflow ON executions (tenant, workflow, started_at);
-- Lists what has ended in some time and was started long before: see search.rs. What takes
-- less than a minute never enters it.
CREATE INDEX executions_long_by_end ON executions (tenant, closed_at)
    WHERE closed_at - started_at >= 60000;

-- Labels and attributes one by one, written in the transaction of their execution. Those
-- without any never enter it.
CREATE TABLE execution_tags (
    tenant     TEXT NOT NULL,
    seq        INTEGER NOT NULL, -- of the execution
    name       TEXT NOT NULL,    -- which kind, and its name
    value      BLOB NOT NULL,    -- search.rs: in the order of values
    started_at INTEGER NOT NULL, -- of the execution
    -- What one execution has.
    PRIMARY KEY (tenant, seq, name)
) STRICT, WITHOUT ROWID;
-- Lists those with one value.
CREATE INDEX execution_tags_by_value ON execution_tags (tenant, name, value, started_at, seq);
-- Lists those that have it, and looks at the values on the way.
CREATE INDEX execution_tags_by_name ON execution_tags (tenant, name, started_at, seq, value);
