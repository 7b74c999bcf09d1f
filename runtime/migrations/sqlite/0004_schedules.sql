-- How far each schedule of an application is. Written before what it says is done, and
-- read whole, by tenant, when a server starts.
CREATE TABLE schedules (
    tenant      TEXT NOT NULL,
    application TEXT NOT NULL,
    name        TEXT NOT NULL,
    state       TEXT NOT NULL, -- JSON: cascade_cdl::schedule::State
    PRIMARY KEY (tenant, application, name)
) STRICT;
