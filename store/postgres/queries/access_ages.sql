SELECT c.user_id, c.mcp_server_id, c.id, {{state}}, extract(epoch FROM now() - coalesce(a.refreshed_at, c.created_at))::float8
FROM {{schema}}.ai_mcp_oauth_credentials AS c
LEFT JOIN {{schema}}.lockwood_access_tokens AS a
    ON a.user_id = c.user_id AND a.mcp_server_id = c.mcp_server_id AND a.credential_id = c.id
WHERE c.id > $1::bigint
ORDER BY c.id
LIMIT $2::bigint
