SELECT a.user_id, a.mcp_server_id, a.credential_id, a.generation
FROM lockwood_access_tokens AS a
WHERE (a.user_id > ?1 OR a.user_id = ?1 AND a.mcp_server_id > ?2)
    AND NOT EXISTS (
        SELECT 1 FROM ai_mcp_oauth_credentials AS c WHERE c.user_id = a.user_id AND c.mcp_server_id = a.mcp_server_id
    )
ORDER BY a.user_id, a.mcp_server_id
LIMIT ?3
