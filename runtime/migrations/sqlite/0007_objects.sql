-- Objects of tenants by bucket and key. The content is a file, named by digest
-- (objects.rs). Lists go through the keys of a bucket in order.
CREATE TABLE objects (
    tenant     TEXT NOT NULL,
    bucket     TEXT NOT NULL,
    key        TEXT NOT NULL,
    digest     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, bucket, key)
) STRICT, WITHOUT ROWID;

-- Whether another object has the content of one that is removed.
CREATE INDEX objects_by_digest ON objects (tenant, digest);

-- What each tenant keeps, to hold a write to its quota without counting all.
CREATE TABLE object_usage (
    tenant  TEXT NOT NULL PRIMARY KEY,
    objects INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
) STRICT;

CREATE TRIGGER object_added AFTER INSERT ON objects BEGIN
    INSERT INTO object_usage (tenant, objects, bytes) VALUES (NEW.tenant, 1, NEW.size)
        ON CONFLICT (tenant) DO UPDATE SET objects = objects + 1, bytes = bytes + NEW.size;
END;

CREATE TRIGGER object_replaced AFTER UPDATE ON objects BEGIN
    UPDATE object_usage SET bytes = bytes - OLD.size + NEW.size WHERE tenant = NEW.tenant;
END;

CREATE TRIGGER object_removed AFTER DELETE ON objects BEGIN
    UPDATE object_usage SET objects = objects - 1, bytes = bytes - OLD.size
        WHERE tenant = OLD.tenant;
END;
