SELECT id, user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at, ctid, xmin
FROM {{schema}}.ai_mcp_oauth_credentials
WHERE id > $1::bigint
ORDER BY id
LIMIT $2::bigint
