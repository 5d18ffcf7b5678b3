SELECT 'SCHEMA ' || pg_catalog.quote_ident(nspname), 'USAGE' FROM pg_catalog.pg_namespace
WHERE nspname = $1::text AND NOT pg_catalog.has_schema_privilege(oid, 'USAGE')
