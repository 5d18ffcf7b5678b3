INSERT INTO {{schema}}.ai_mcp_oauth_credentials (
    id, user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
)
VALUES ($1::bigint, $2::bigint, $3::text, $4::bytea, $5::text, $6::bytea, $7::timestamptz, $8::text, $9::text, $10::text, $11::timestamptz, $12::timestamptz)
ON CONFLICT DO NOTHING
