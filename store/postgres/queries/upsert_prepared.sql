-- What the function of upsert.sql does, in a statement that is for preparing: with its
-- plan kept, it costs less than the call of a function. It writes no row where the
-- data key is gone. The quota is a function because it is called for a new row alone,
-- where PostgreSQL would prepare to run a subquery for every row.
WITH data_key AS (
    SELECT FROM {{schema}}.lockwood_data_keys
    WHERE key_id OPERATOR(pg_catalog.=) $10::pg_catalog.bytea AND state OPERATOR(pg_catalog.=) 'enabled'
    FOR KEY SHARE
)
INSERT INTO {{schema}}.ai_mcp_oauth_credentials AS c (
    user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at,
    token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
)
SELECT $1::pg_catalog.int8, $2::pg_catalog.text, $3::pg_catalog.bytea, $4::pg_catalog.text, $5::pg_catalog.bytea,
    $6::pg_catalog.timestamptz, $7::pg_catalog.text, $8::pg_catalog.text, $9::pg_catalog.text,
    pg_catalog.date_trunc('milliseconds', pg_catalog.now()), pg_catalog.date_trunc('milliseconds', pg_catalog.now())
WHERE $10::pg_catalog.bytea IS NULL OR EXISTS (SELECT FROM data_key)
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
RETURNING CASE
    WHEN c.xmax OPERATOR(pg_catalog.=) 0 AND $11::pg_catalog.int8 OPERATOR(pg_catalog.>) 0
    THEN {{schema}}.lockwood_check_quota_4($1::pg_catalog.int8, $11::pg_catalog.int8)
END
