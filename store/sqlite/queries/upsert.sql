-- Writes a credential as the only one of its user and server, with a new id.
--
-- ?10 is the data key that sealed the records, NULL if they are legacy. One
-- statement is one write transaction, of which there is one at a time in a file:
-- a destruction of the key is either over, and this finds it destroyed and
-- writes nothing, or comes after, and counts what this wrote.
--
-- ?11 is how many credentials the user may have, 0 for any number. Only a row that
-- replaces none is counted against it, and no further than it needs.
INSERT OR REPLACE INTO ai_mcp_oauth_credentials (
    user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, strftime({{time_format}}, 'now'), strftime({{time_format}}, 'now')
WHERE (?10 IS NULL OR EXISTS (SELECT 1 FROM lockwood_data_keys WHERE key_id = ?10 AND state = 'enabled'))
    AND (
        ?11 <= 0
        OR EXISTS (SELECT 1 FROM ai_mcp_oauth_credentials WHERE user_id = ?1 AND mcp_server_id = ?2)
        OR (SELECT count(*) FROM (SELECT 1 FROM ai_mcp_oauth_credentials WHERE user_id = ?1 LIMIT ?11)) < ?11
    )
