-- What was deposited since stays.
INSERT INTO {{schema}}.ai_mcp_oauth_credentials (
    user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
)
VALUES ($1::bigint, $2::text, $3::bytea, $4::text, $5::bytea, $6::timestamptz, $7::text, $8::text, $9::text, $10::timestamptz, $11::timestamptz)
ON CONFLICT (user_id, mcp_server_id) DO NOTHING
