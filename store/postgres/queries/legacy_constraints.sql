-- The constraints of the credential table, from $2, that exist, and whether every
-- row is known to satisfy them.
SELECT c.conname, c.convalidated
FROM pg_catalog.pg_constraint AS c
JOIN pg_catalog.pg_class AS r ON r.oid = c.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
WHERE n.nspname = $1::text AND r.relname = 'ai_mcp_oauth_credentials' AND c.conname = ANY ($2::text[])
