-- lockwood_upsert_credential of 002_lockwood.up.sql, which says what it does, with a
-- quota: p_quota is how many credentials the user may have, and 0 any number. It has
-- a name of its own, which is its migration's number, so that instances of the
-- version before go on calling theirs.
--
-- Only a new row is counted, after it was written, so that replacing one costs what
-- it did. A row that was written over carries the lock that ON CONFLICT took on the
-- old one in its xmax, and a new row has none.
--
-- Functions and operators are named with their schema: the search path of the role
-- that calls could put others of the same name before them.
CREATE FUNCTION {{schema}}.lockwood_check_quota_4(p_user_id bigint, p_quota bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- What is beyond the quota ends the statement with an error of our own, which takes
    -- the row back. The rows of the user's that are seen include the new one.
    PERFORM FROM {{schema}}.ai_mcp_oauth_credentials WHERE user_id OPERATOR(pg_catalog.=) p_user_id OFFSET p_quota LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'lockwood: the user has as many credentials as the quota allows' USING ERRCODE = 'LW001';
    END IF;
    RETURN true;
END
$$;

CREATE FUNCTION {{schema}}.lockwood_upsert_credential_4(
    p_user_id bigint, p_mcp_server_id text, p_refresh_token_enc bytea, p_client_id text, p_client_secret_enc bytea,
    p_client_secret_expires_at timestamptz, p_token_endpoint text, p_token_endpoint_auth_method text, p_scopes text,
    p_key_id bytea, p_quota bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_is_new boolean;
BEGIN
    WITH data_key AS (
        SELECT FROM {{schema}}.lockwood_data_keys
        WHERE key_id OPERATOR(pg_catalog.=) p_key_id AND state OPERATOR(pg_catalog.=) 'enabled'
        FOR KEY SHARE
    )
    INSERT INTO {{schema}}.ai_mcp_oauth_credentials AS c (
        user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at,
        token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
    )
    SELECT p_user_id, p_mcp_server_id, p_refresh_token_enc, p_client_id, p_client_secret_enc, p_client_secret_expires_at,
        p_token_endpoint, p_token_endpoint_auth_method, p_scopes,
        pg_catalog.date_trunc('milliseconds', pg_catalog.now()), pg_catalog.date_trunc('milliseconds', pg_catalog.now())
    WHERE p_key_id IS NULL OR EXISTS (SELECT FROM data_key)
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
    RETURNING c.xmax OPERATOR(pg_catalog.=) 0 INTO v_is_new;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF v_is_new AND p_quota OPERATOR(pg_catalog.>) 0 THEN
        PERFORM {{schema}}.lockwood_check_quota_4(p_user_id, p_quota);
    END IF;
    RETURN true;
END
$$;
