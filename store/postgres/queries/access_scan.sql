-- Access tokens, with the endpoint that each is bound to if its credential is still there.
SELECT a.user_id, a.mcp_server_id, a.credential_id, c.token_endpoint, a.access_token_enc
FROM {{schema}}.lockwood_access_tokens AS a
LEFT JOIN {{schema}}.ai_mcp_oauth_credentials AS c
    ON c.user_id = a.user_id AND c.mcp_server_id = a.mcp_server_id AND c.id = a.credential_id
WHERE a.access_token_enc IS NOT NULL
    AND (a.user_id > $1::bigint OR a.user_id = $1::bigint AND a.mcp_server_id COLLATE "C" > $2::text)
ORDER BY a.user_id, a.mcp_server_id COLLATE "C"
LIMIT $3::bigint
