-- Contents of objects, in blocks, so that any server can read them (store/contents.rs). One
-- that is being written has no digest yet; one that no object has any more has none again.
-- Both go when they are due, the blocks some at a time.
CREATE TABLE contents (
    size    BIGINT NOT NULL DEFAULT 0,
    due_at  TIMESTAMPTZ NOT NULL, -- by the clock of the database; matters without a digest
    content UUID NOT NULL,
    is_done BOOLEAN NOT NULL DEFAULT false, -- nothing is added to it any more
    tenant  TEXT COLLATE "C" NOT NULL,
    digest  TEXT COLLATE "C",
    PRIMARY KEY (tenant, content)
);
-- Finds a content; a tenant has each once.
CREATE UNIQUE INDEX contents_by_digest ON contents (tenant, digest) WHERE digest IS NOT NULL;
-- Finds what is to go.
CREATE INDEX contents_by_due ON contents (due_at) WHERE digest IS NULL;

CREATE TABLE content_blocks (
    number  BIGINT NOT NULL, -- from 0
    content UUID NOT NULL,
    tenant  TEXT COLLATE "C" NOT NULL,
    bytes   BYTEA NOT NULL,
    PRIMARY KEY (tenant, content, number)
);
-- Much of it is compressed already, and trying to costs more than it saves.
ALTER TABLE content_blocks ALTER COLUMN bytes SET STORAGE EXTERNAL;

ALTER TABLE contents ENABLE ROW LEVEL SECURITY;
ALTER TABLE contents FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON contents
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
ALTER TABLE content_blocks ENABLE ROW LEVEL SECURITY;
ALTER TABLE content_blocks FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON content_blocks
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
