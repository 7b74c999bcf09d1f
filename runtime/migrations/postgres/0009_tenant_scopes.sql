-- `*`, which let a session see everybody's rows, is no more. `cascade.tenant` is a list of
-- exactly the tenants that a statement is for, with commas between; unset or empty, it
-- sees and writes nothing. Ids of tenants have no comma. One tenant, which is usual, is
-- compared at once; a list is hashed once a statement, since a commit may be of a thousand.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_policies
        WHERE schemaname = current_schema() AND policyname = 'tenant_scope'
    LOOP
        EXECUTE format($policy$ALTER POLICY tenant_scope ON %I USING (
            current_setting('cascade.tenant', true) = tenant
            OR tenant IN (SELECT unnest(string_to_array(current_setting('cascade.tenant', true), ',')))
            )$policy$, name);
    END LOOP;
END
$$;

-- What has to look across tenants, each for itself, and to read only.
-- Rebuilds shards: executions that have not ended.
CREATE POLICY recovery ON executions FOR SELECT
    USING (status = 0 AND current_setting('cascade.scope', true) = 'recovery');
-- Lists the tenants, and nothing that they have.
CREATE POLICY administration ON tenants FOR SELECT
    USING (current_setting('cascade.scope', true) = 'tenants');
-- Finds the tenant of a request: the one key that it has shown.
CREATE POLICY authentication ON api_keys FOR SELECT
    USING (hash = current_setting('cascade.key', true));
-- Follows what servers tell each other of what they keep in memory.
CREATE POLICY feed ON changes FOR SELECT
    USING (current_setting('cascade.scope', true) = 'feed');
-- Finds contents that no object has any more.
CREATE POLICY sweep ON contents FOR SELECT
    USING (digest IS NULL AND current_setting('cascade.scope', true) = 'sweep');

-- Programs from before name `*`, and would see nothing.
UPDATE compatibility SET oldest = 9;
