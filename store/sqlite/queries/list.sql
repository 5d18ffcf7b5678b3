SELECT mcp_server_id, client_id, client_secret_enc IS NOT NULL, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
FROM ai_mcp_oauth_credentials
WHERE user_id = ?1
ORDER BY mcp_server_id
