-- What the role may not do to the schema $1: look into it and, where our tables are yet
-- to be made, make them, or make the schema.
SELECT 'SCHEMA ' || pg_catalog.quote_ident(nspname), 'USAGE' FROM pg_catalog.pg_namespace
WHERE nspname = $1::text AND NOT pg_catalog.has_schema_privilege(oid, 'USAGE')
UNION ALL
SELECT 'SCHEMA ' || pg_catalog.quote_ident(nspname), 'CREATE' FROM pg_catalog.pg_namespace AS n
WHERE nspname = $1::text AND NOT pg_catalog.has_schema_privilege(oid, 'CREATE')
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = 'lockwood_store')
UNION ALL
SELECT 'DATABASE ' || pg_catalog.quote_ident(pg_catalog.current_database()), 'CREATE'
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text)
    AND NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
