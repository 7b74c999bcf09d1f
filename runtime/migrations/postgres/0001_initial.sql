-- Names and tenants are compared by bytes, as everywhere else: COLLATE "C".

-- One row is one execution. Short ones end their life in this row, history inside.
CREATE TABLE executions (
    seq                 BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY, -- order of creation, cursor of lists; has gaps
    version             BIGINT NOT NULL,
    started_at          BIGINT NOT NULL,
    closed_at           BIGINT,
    wake_at             BIGINT,
    tail_first          BIGINT NOT NULL DEFAULT 1, -- number of the first event in `history`
    application_version BIGINT NOT NULL,
    bucket              INTEGER NOT NULL,
    status              SMALLINT NOT NULL,         -- codec.rs: 0 running, 1 completed, 2 failed, 3 cancelled, 4 timed out
    idle                SMALLINT NOT NULL,
    id                  UUID NOT NULL,
    tenant              TEXT COLLATE "C" NOT NULL,
    application         TEXT COLLATE "C" NOT NULL,
    workflow            TEXT COLLATE "C" NOT NULL,
    error               BYTEA,                     -- UTF-8; activities name errors as they like
    snapshot            BYTEA,
    history             BYTEA NOT NULL,
    -- Loads one execution; refuses a second start of the same one. Ids are ordered by
    -- time, so new entries of all tenants go to one end.
    PRIMARY KEY (id, tenant)
) WITH (
    -- Room for the next version of a row that waits, beside it.
    fillfactor = 90,
    -- Many rows are written once and never again: a fifth of the table, the
    -- default, would be long to wait for and much to look through at once.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02
);
-- Lists a tenant, newest first.
CREATE INDEX executions_by_tenant ON executions (tenant, seq);
-- Lists a tenant by a status that is rare in the long run. Completed ones, the
-- mass, never enter it, so it costs a short execution nothing.
CREATE INDEX executions_by_status ON executions (tenant, status, seq) WHERE status <> 1;
-- Recovers the open executions of a shard.
CREATE INDEX executions_open ON executions (bucket, seq) WHERE status = 0;

-- What a long history moved out of its row: events up to `last_seq`.
CREATE TABLE history_chunks (
    last_seq BIGINT NOT NULL,
    id       UUID NOT NULL,
    tenant   TEXT COLLATE "C" NOT NULL,
    events   BYTEA NOT NULL,
    -- Reads a history from any event on.
    PRIMARY KEY (id, tenant, last_seq)
);

-- Who may write a shard: the epoch counts changes of hands. A commit locks the
-- rows of its shards, so that they change hands before it or after it.
CREATE TABLE leases (
    shard INTEGER PRIMARY KEY,
    epoch BIGINT NOT NULL
);

CREATE TABLE modules (
    tenant TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    wasm   BYTEA NOT NULL,
    PRIMARY KEY (tenant, digest)
);
-- Modules are read whole: compressing them would cost more than it saves.
ALTER TABLE modules ALTER COLUMN wasm SET STORAGE EXTERNAL;

CREATE TABLE activities (
    tenant      TEXT COLLATE "C" NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    number      BIGINT NOT NULL,
    version     TEXT COLLATE "C" NOT NULL,
    digest      TEXT COLLATE "C" NOT NULL,
    description BYTEA NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, name, number),
    UNIQUE (tenant, name, version)
);

CREATE TABLE applications (
    tenant     TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    version    BIGINT NOT NULL,
    file       BYTEA NOT NULL,
    source     BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name, version)
);

-- Workflows of which nothing new is started, by the application's name. Read
-- whole, by tenant, when a server starts.
CREATE TABLE paused_workflows (
    tenant      TEXT COLLATE "C" NOT NULL,
    application TEXT COLLATE "C" NOT NULL,
    workflow    TEXT COLLATE "C" NOT NULL,
    reason      BYTEA NOT NULL,
    paused_at   BIGINT NOT NULL,
    PRIMARY KEY (tenant, application, workflow)
);

CREATE TABLE tenants (
    tenant     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    settings   BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant     TEXT COLLATE "C" NOT NULL,
    hash       TEXT COLLATE "C" NOT NULL UNIQUE, -- how a request finds its tenant
    role       TEXT COLLATE "C" NOT NULL,
    label      BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);
-- Lists the keys of a tenant.
CREATE INDEX api_keys_by_tenant ON api_keys (tenant, id);

-- The key-value capability.
CREATE TABLE kv (
    tenant TEXT COLLATE "C" NOT NULL,
    key    BYTEA NOT NULL,
    value  BYTEA NOT NULL,
    PRIMARY KEY (tenant, key)
);

-- What each tenant keeps in `kv`, in keys and in bytes of keys and values:
-- changed in the transaction that writes them.
CREATE TABLE kv_usage (
    tenant TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    keys   BIGINT NOT NULL,
    bytes  BIGINT NOT NULL
);

-- The number of the newest migration that a program must know to work with what
-- is here: see README.md beside this file.
CREATE TABLE compatibility (oldest BIGINT NOT NULL);
INSERT INTO compatibility (oldest) VALUES (1);

-- A statement sees the rows of the tenant that its transaction names, and none if
-- it names none; `*` is the engine, whose commits hold many tenants. Forced: for
-- the owner of the tables, too. A query that forgot its tenant finds nothing.
ALTER TABLE executions ENABLE ROW LEVEL SECURITY;
ALTER TABLE executions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON executions
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE history_chunks ENABLE ROW LEVEL SECURITY;
ALTER TABLE history_chunks FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON history_chunks
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE modules ENABLE ROW LEVEL SECURITY;
ALTER TABLE modules FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON modules
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE activities ENABLE ROW LEVEL SECURITY;
ALTER TABLE activities FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON activities
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE applications ENABLE ROW LEVEL SECURITY;
ALTER TABLE applications FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON applications
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE paused_workflows ENABLE ROW LEVEL SECURITY;
ALTER TABLE paused_workflows FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON paused_workflows
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON tenants
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON api_keys
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE kv ENABLE ROW LEVEL SECURITY;
ALTER TABLE kv FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON kv
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE kv_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE kv_usage FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON kv_usage
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
