-- Objects of tenants by bucket and key. The content is a file, named by digest
-- (objects.rs). Lists go through the keys of a bucket in order, which is that of bytes.
CREATE TABLE objects (
    tenant     TEXT COLLATE "C" NOT NULL,
    bucket     TEXT COLLATE "C" NOT NULL,
    key        BYTEA NOT NULL,
    digest     TEXT COLLATE "C" NOT NULL,
    size       BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, bucket, key)
);

-- Whether another object has the content of one that is removed.
CREATE INDEX objects_by_digest ON objects (tenant, digest);

-- What each tenant keeps, to hold a write to its quota without counting all. Changed in
-- the transactions that change `objects` (store/postgres/objects.rs).
CREATE TABLE object_usage (
    tenant  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    objects BIGINT NOT NULL,
    bytes   BIGINT NOT NULL
);

ALTER TABLE objects ENABLE ROW LEVEL SECURITY;
ALTER TABLE objects FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON objects
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE object_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE object_usage FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON object_usage
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
