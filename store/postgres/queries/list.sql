-- $2 is where the page before ended, NULL for the first.
SELECT mcp_server_id, client_id, client_secret_enc IS NOT NULL, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
FROM {{schema}}.ai_mcp_oauth_credentials
WHERE user_id = $1::bigint AND ($2::text IS NULL OR mcp_server_id COLLATE "C" > $2::text)
ORDER BY mcp_server_id COLLATE "C"
LIMIT $3::bigint
