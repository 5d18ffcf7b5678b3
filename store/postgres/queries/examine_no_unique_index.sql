-- The credential table, $2, if no index of it is what ON CONFLICT (user_id,
-- mcp_server_id) needs.
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relname = $2::text AND c.relkind IN ('r', 'p')
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_index AS i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
            AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 2
            AND (
                SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = c.oid AND a.attnum IN (i.indkey[0], i.indkey[1])
            ) = ARRAY['mcp_server_id', 'user_id']
    )
