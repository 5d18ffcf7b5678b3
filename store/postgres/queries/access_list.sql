-- $4, $5 and $6 are the filter, NULL for all.
SELECT c.user_id, c.mcp_server_id, c.id, c.token_endpoint, {{state}}, coalesce(a.verdict, ''), coalesce(a.failures, 0),
    CASE WHEN a.next_attempt_at > now() THEN a.next_attempt_at END, c.created_at, a.refreshed_at, {{token_end}}
FROM {{schema}}.ai_mcp_oauth_credentials AS c
LEFT JOIN {{schema}}.lockwood_access_tokens AS a
    ON a.user_id = c.user_id AND a.mcp_server_id = c.mcp_server_id AND a.credential_id = c.id
WHERE (c.user_id > $1::bigint OR c.user_id = $1::bigint AND c.mcp_server_id COLLATE "C" > $2::text)
    AND ($4::bigint IS NULL OR c.user_id = $4::bigint)
    AND ($5::text IS NULL OR c.mcp_server_id = $5::text)
    AND ($6::text = '' OR {{state}} = $6::text)
ORDER BY c.user_id, c.mcp_server_id COLLATE "C"
LIMIT $3::bigint
