-- Tenants whose rows are in a schema of their own, in this database, and not here. A row
-- of this table decides: every transaction for a tenant looks it up, and goes there.
CREATE TABLE tenant_homes (
    tenant TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    schema TEXT COLLATE "C" NOT NULL UNIQUE
);

ALTER TABLE tenant_homes ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_homes FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_scope ON tenant_homes USING (
    current_setting('cascade.tenant', true) = tenant
    OR tenant IN (SELECT unnest(string_to_array(current_setting('cascade.tenant', true), ','))));
-- What looks across tenants must know where to look.
CREATE POLICY across ON tenant_homes FOR SELECT
    USING (current_setting('cascade.scope', true) IN ('tenants', 'recovery', 'sweep'));

-- Programs from before would look for the rows of such a tenant where they are not.
UPDATE compatibility SET oldest = 11;
