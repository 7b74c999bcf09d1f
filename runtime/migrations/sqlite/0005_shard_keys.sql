-- What an execution is placed by, if not by its id: its bucket is that of the key. The
-- column comes after `history`, so that a long row is read to its end to show it; without a
-- key there is nothing to read, and few executions have both a key and a long tail.
ALTER TABLE executions ADD COLUMN shard_key TEXT;

-- Lists the executions of one key, newest first: the rowid `seq` ends each entry. Those
-- without a key never enter it.
CREATE INDEX executions_by_shard_key ON executions (tenant, shard_key) WHERE shard_key IS NOT NULL;
