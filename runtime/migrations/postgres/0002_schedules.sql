-- How far each schedule of an application is. Written before what it says is done, and
-- read whole, by tenant, when a server starts.
CREATE TABLE schedules (
    tenant      TEXT COLLATE "C" NOT NULL,
    application TEXT COLLATE "C" NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    state       BYTEA NOT NULL, -- JSON: cascade_cdl::schedule::State
    PRIMARY KEY (tenant, application, name)
);
ALTER TABLE schedules ENABLE ROW LEVEL SECURITY;
ALTER TABLE schedules FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON schedules
    USING (current_setting('cascade.tenant', true) IN (tenant, '*'));
