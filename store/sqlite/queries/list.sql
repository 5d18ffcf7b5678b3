-- ?2 is where the page before ended, NULL for the first.
SELECT mcp_server_id, client_id, client_secret_enc IS NOT NULL, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
FROM ai_mcp_oauth_credentials
WHERE user_id = ?1 AND (?2 IS NULL OR mcp_server_id > ?2)
ORDER BY mcp_server_id
LIMIT ?3
