-- Workflows of which nothing new is started, by the application's name: a new
-- version of it does not change that. Read whole, by tenant, when a server starts.
CREATE TABLE paused_workflows (
    tenant      TEXT NOT NULL,
    application TEXT NOT NULL,
    workflow    TEXT NOT NULL,
    reason      TEXT NOT NULL,
    paused_at   INTEGER NOT NULL,
    PRIMARY KEY (tenant, application, workflow)
) STRICT;
