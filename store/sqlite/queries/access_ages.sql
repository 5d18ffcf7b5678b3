SELECT c.user_id, c.mcp_server_id, c.id, {{state}}, {{now}} - coalesce(a.refreshed_at, CAST(unixepoch(c.created_at, 'subsec') * 1000 AS INTEGER))
FROM ai_mcp_oauth_credentials AS c
LEFT JOIN lockwood_access_tokens AS a
    ON a.user_id = c.user_id AND a.mcp_server_id = c.mcp_server_id AND a.credential_id = c.id
WHERE c.id > ?1
ORDER BY c.id
LIMIT ?2
