-- What a record is bound to, and no more.
SELECT id, user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, token_endpoint, token_endpoint_auth_method, ctid, xmin
FROM {{schema}}.ai_mcp_oauth_credentials
WHERE id > $1::bigint AND id <= $2::bigint AND ({{stale}})
ORDER BY id
LIMIT $3::bigint
