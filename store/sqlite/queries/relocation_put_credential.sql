INSERT INTO ai_mcp_oauth_credentials (
    id, user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
ON CONFLICT DO NOTHING
