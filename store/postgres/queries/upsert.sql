-- Writes a credential as the only one of its user and server, with a new id.
--
-- $10 is the data key that sealed the records, NULL if they are legacy. Its row
-- is locked against destruction until the transaction ends. Where a destruction
-- is under way, the lock waits for it and then looks at the row as it left it,
-- so a key that is gone yields no row, and nothing is written. FOR KEY SHARE
-- lets all writers pass each other, and the reservation of seals too.
WITH data_key AS (
    SELECT FROM {{schema}}.lockwood_data_keys
    WHERE key_id = $10::bytea AND state = 'enabled'
    FOR KEY SHARE
)
INSERT INTO {{schema}}.ai_mcp_oauth_credentials AS c (
    user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
)
SELECT $1::bigint, $2::text, $3::bytea, $4::text, $5::bytea, $6::timestamptz,
    $7::text, $8::text, $9::text, date_trunc('milliseconds', now()), date_trunc('milliseconds', now())
WHERE $10::bytea IS NULL OR EXISTS (SELECT FROM data_key)
ON CONFLICT (user_id, mcp_server_id) DO UPDATE SET
    id = excluded.id,
    refresh_token_enc = excluded.refresh_token_enc,
    client_id = excluded.client_id,
    client_secret_enc = excluded.client_secret_enc,
    client_secret_expires_at = excluded.client_secret_expires_at,
    token_endpoint = excluded.token_endpoint,
    token_endpoint_auth_method = excluded.token_endpoint_auth_method,
    scopes = excluded.scopes,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at
