-- What servers that share this database tell each other (store/feed.rs): of each thing that
-- they keep in memory, the number of its last change.
CREATE TABLE changes (
    number BIGINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    kind   TEXT COLLATE "C" NOT NULL,
    name   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, kind, name)
);
-- Reads what came after a number.
CREATE INDEX changes_by_number ON changes (number);

-- The last number. One row, which a change locks until its transaction has ended: so numbers
-- become visible in order, and whoever has seen one misses none before it.
CREATE TABLE change_counter (last BIGINT NOT NULL);
INSERT INTO change_counter (last) VALUES (0);

ALTER TABLE changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE changes FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON changes
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
