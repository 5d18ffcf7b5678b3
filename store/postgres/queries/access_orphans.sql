SELECT a.user_id, a.mcp_server_id, a.credential_id, a.generation
FROM {{schema}}.lockwood_access_tokens AS a
WHERE (a.user_id > $1::bigint OR a.user_id = $1::bigint AND a.mcp_server_id COLLATE "C" > $2::text)
    AND NOT EXISTS (
        SELECT FROM {{schema}}.ai_mcp_oauth_credentials AS c WHERE c.user_id = a.user_id AND c.mcp_server_id = a.mcp_server_id
    )
ORDER BY a.user_id, a.mcp_server_id COLLATE "C"
LIMIT $3::bigint
