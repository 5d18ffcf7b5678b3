-- The page first, and then a look by its key for each of it, however large the tables are.
SELECT c.user_id, c.mcp_server_id, c.id, {{state}}, extract(epoch FROM now() - coalesce(a.refreshed_at, c.created_at))::float8
FROM (
    SELECT user_id, mcp_server_id, id, created_at FROM {{schema}}.ai_mcp_oauth_credentials
    WHERE id > $1::bigint
    ORDER BY id
    LIMIT $2::bigint
) AS c
LEFT JOIN LATERAL (
    SELECT verdict, refreshed_at FROM {{schema}}.lockwood_access_tokens AS t
    WHERE t.user_id = c.user_id AND t.mcp_server_id = c.mcp_server_id AND t.credential_id = c.id
    OFFSET 0
) AS a ON true
ORDER BY c.id
