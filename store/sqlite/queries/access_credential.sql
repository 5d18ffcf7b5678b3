-- The records of the credential, if it is still the one of that ID.
SELECT refresh_token_enc, client_secret_enc FROM ai_mcp_oauth_credentials
WHERE user_id = ?1 AND mcp_server_id = ?2 AND id = ?3
