-- The refresh token that the server answered with takes the place of the one that was
-- presented, ?6 and ?7, and of no other.
UPDATE ai_mcp_oauth_credentials SET
    refresh_token_enc = ?4,
    client_secret_enc = ?5,
    updated_at = strftime({{time_format}}, 'now')
WHERE user_id = ?1 AND mcp_server_id = ?2 AND id = ?3 AND refresh_token_enc IS ?6 AND client_secret_enc IS ?7
