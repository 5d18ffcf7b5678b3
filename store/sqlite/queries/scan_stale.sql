-- What a record is bound to, and no more.
SELECT id, user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, token_endpoint, token_endpoint_auth_method
FROM ai_mcp_oauth_credentials
WHERE id > ?1 AND id <= ?2 AND ({{stale}})
ORDER BY id
LIMIT ?3
