-- ?4, ?5 and ?6 are the filter, NULL for all.
SELECT c.user_id, c.mcp_server_id, c.id, c.token_endpoint, {{state}}, coalesce(a.verdict, ''), coalesce(a.failures, 0),
    CASE WHEN a.next_attempt_at > {{now}} THEN a.next_attempt_at END, c.created_at, a.refreshed_at, {{token_end}}
FROM ai_mcp_oauth_credentials AS c
LEFT JOIN lockwood_access_tokens AS a
    ON a.user_id = c.user_id AND a.mcp_server_id = c.mcp_server_id AND a.credential_id = c.id
WHERE (c.user_id > ?1 OR c.user_id = ?1 AND c.mcp_server_id > ?2)
    AND (?4 IS NULL OR c.user_id = ?4)
    AND (?5 IS NULL OR c.mcp_server_id = ?5)
    AND (?6 = '' OR {{state}} = ?6)
ORDER BY c.user_id, c.mcp_server_id
LIMIT ?3
