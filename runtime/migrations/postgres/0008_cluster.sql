-- Several processes share this database. Times here are those of the database: the clocks
-- of nodes do not count.

-- The processes, each for as long as it lives, and for a while afterwards.
CREATE TABLE nodes (
    id         UUID NOT NULL PRIMARY KEY,
    address    BYTEA NOT NULL,   -- URL where the others reach its API, UTF-8
    version    BYTEA NOT NULL,   -- of the program
    load       BYTEA NOT NULL,   -- JSON: what it has to do
    leaving    BOOLEAN NOT NULL, -- it hands over all that it holds
    started_at TIMESTAMPTZ NOT NULL,
    seen_at    TIMESTAMPTZ NOT NULL,
    until      TIMESTAMPTZ NOT NULL -- it is taken for dead from then on
);

-- Ranges of buckets, who moves their executions on, and until when. Beside `leases`, not in
-- it: commits lock those, and a lease must be renewed however long a commit takes.
CREATE TABLE shards (
    shard        INTEGER NOT NULL PRIMARY KEY,
    first_bucket INTEGER NOT NULL,
    end_bucket   INTEGER NOT NULL, -- the first that is not in it
    holder       UUID,             -- a node; nobody if absent
    until        TIMESTAMPTZ NOT NULL -- when the lease ends, or ended
);

-- By which nodes know each other's requests.
CREATE TABLE cluster_secret (secret BYTEA NOT NULL);
INSERT INTO cluster_secret (secret)
    SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));

-- The release before takes shards from whoever holds them.
INSERT INTO compatibility (oldest) VALUES (8);
