-- What an execution is placed by, if not by its id: its bucket is that of the key. As
-- bytes, since it comes from an input.
ALTER TABLE executions ADD COLUMN shard_key BYTEA;

-- Lists the executions of one key, newest first. Those without a key never enter it.
CREATE INDEX executions_by_shard_key ON executions (tenant, shard_key, seq)
    WHERE shard_key IS NOT NULL;
