-- The refresh token that the server answered with takes the place of the one that was
-- presented, $6 and $7, and of no other.
UPDATE {{schema}}.ai_mcp_oauth_credentials SET
    refresh_token_enc = $4::bytea,
    client_secret_enc = $5::bytea,
    updated_at = date_trunc('milliseconds', now())
WHERE user_id = $1::bigint AND mcp_server_id = $2::text AND id = $3::bigint
    AND refresh_token_enc = $6::bytea AND client_secret_enc IS NOT DISTINCT FROM $7::bytea
