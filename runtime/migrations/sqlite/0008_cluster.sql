-- The same as in PostgreSQL, where several processes share a database: only one has this file
-- open, but tools and tests see the same. Times are milliseconds of the machine.
CREATE TABLE nodes (
    id         TEXT PRIMARY KEY,
    address    TEXT NOT NULL,
    version    TEXT NOT NULL,
    load       TEXT NOT NULL, -- JSON
    leaving    INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,
    until      INTEGER NOT NULL
) STRICT;

CREATE TABLE shards (
    shard        INTEGER PRIMARY KEY,
    first_bucket INTEGER NOT NULL,
    end_bucket   INTEGER NOT NULL,
    holder       TEXT,
    until        INTEGER NOT NULL
) STRICT;

CREATE TABLE cluster_secret (secret BLOB NOT NULL) STRICT;
INSERT INTO cluster_secret (secret) VALUES (randomblob(32));
