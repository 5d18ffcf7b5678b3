-- ?2 is where the page before ended, NULL for the first. What is known of access tokens
-- counts only if it is about this very credential.
SELECT c.mcp_server_id, c.client_id, c.client_secret_enc IS NOT NULL, c.client_secret_expires_at,
    c.token_endpoint, c.token_endpoint_auth_method, c.scopes, c.created_at, c.updated_at,
    {{state}}, a.refreshed_at, {{token_end}}
FROM ai_mcp_oauth_credentials AS c
LEFT JOIN lockwood_access_tokens AS a
    ON a.user_id = c.user_id AND a.mcp_server_id = c.mcp_server_id AND a.credential_id = c.id
WHERE c.user_id = ?1 AND (?2 IS NULL OR c.mcp_server_id > ?2)
ORDER BY c.mcp_server_id
LIMIT ?3
