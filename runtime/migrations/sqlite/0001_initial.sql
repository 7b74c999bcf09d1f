-- One row is one execution. Short ones end their life in this row, history inside.
CREATE TABLE executions (
    seq                 INTEGER PRIMARY KEY, -- order of creation, cursor of lists
    tenant              TEXT NOT NULL,
    id                  BLOB NOT NULL,
    bucket              INTEGER NOT NULL,
    application         TEXT NOT NULL,
    application_version INTEGER NOT NULL,
    workflow            TEXT NOT NULL,
    status              INTEGER NOT NULL,    -- codec.rs: 0 running, 1 completed, 2 failed, 3 cancelled, 4 timed out
    error               TEXT,
    started_at          INTEGER NOT NULL,
    closed_at           INTEGER,
    wake_at             INTEGER,
    idle                INTEGER NOT NULL,
    version             INTEGER NOT NULL,
    tail_first          INTEGER NOT NULL DEFAULT 1, -- number of the first event in `history`
    snapshot            TEXT,
    history             TEXT NOT NULL        -- last: filters need not read past it
) STRICT;

-- Loads one execution; refuses a second start of the same one.
CREATE UNIQUE INDEX executions_by_id ON executions (tenant, id);
-- Lists a tenant, newest first: the rowid `seq` ends each entry.
CREATE INDEX executions_by_tenant ON executions (tenant);
-- Lists a tenant by a status that is rare in the long run. Completed ones, the
-- mass, never enter it, so it costs a short execution nothing.
CREATE INDEX executions_by_status ON executions (tenant, status) WHERE status <> 1;
-- Recovers the open executions of a shard.
CREATE INDEX executions_open ON executions (bucket) WHERE status = 0;

-- What a long history moved out of its row: events up to `last_seq`.
CREATE TABLE history_chunks (
    tenant   TEXT NOT NULL,
    id       BLOB NOT NULL,
    last_seq INTEGER NOT NULL,
    events   TEXT NOT NULL
) STRICT;
-- Reads a history from any event on.
CREATE UNIQUE INDEX history_chunks_by_id ON history_chunks (tenant, id, last_seq);

-- Who may write a shard: the epoch counts changes of hands.
CREATE TABLE leases (
    shard INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT;

CREATE TABLE modules (
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    wasm   BLOB NOT NULL,
    UNIQUE (tenant, digest)
) STRICT;

CREATE TABLE activities (
    tenant      TEXT NOT NULL,
    name        TEXT NOT NULL,
    number      INTEGER NOT NULL,
    version     TEXT NOT NULL,
    digest      TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, number),
    UNIQUE (tenant, name, version)
) STRICT;

CREATE TABLE applications (
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    file       TEXT NOT NULL,
    source     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, version)
) STRICT;

CREATE TABLE tenants (
    id         TEXT NOT NULL PRIMARY KEY,
    settings   TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id         TEXT NOT NULL PRIMARY KEY,
    tenant     TEXT NOT NULL,
    hash       TEXT NOT NULL UNIQUE, -- how a request finds its tenant
    role       TEXT NOT NULL,
    label      TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
-- Lists the keys of a tenant.
CREATE INDEX api_keys_by_tenant ON api_keys (tenant);

-- The key-value capability.
CREATE TABLE kv (
    tenant TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  BLOB NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT;
