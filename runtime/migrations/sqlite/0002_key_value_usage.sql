-- What each tenant keeps in `kv`, in keys and in bytes of keys and values. A
-- write of the key-value capability reads it by the tenant, to hold it to the
-- tenant's quota without counting all of its keys, and changes it in the same
-- transaction (store/sqlite/key_value.rs).
CREATE TABLE kv_usage (
    tenant TEXT NOT NULL PRIMARY KEY,
    keys   INTEGER NOT NULL,
    bytes  INTEGER NOT NULL
) STRICT;

-- What is there already counts too.
INSERT INTO kv_usage (tenant, keys, bytes)
    SELECT tenant, count(*), sum(octet_length(key) + octet_length(value)) FROM kv GROUP BY tenant;
