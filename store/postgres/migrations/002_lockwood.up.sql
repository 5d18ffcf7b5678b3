-- The store itself: one row.
CREATE TABLE {{schema}}.lockwood_store (
    id smallint NOT NULL,
    store_id text NOT NULL,
    legacy text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT lockwood_store_pkey PRIMARY KEY (id),
    CONSTRAINT lockwood_store_one_row CHECK (id = 1),
    CONSTRAINT lockwood_store_store_id_set CHECK (store_id <> ''),
    CONSTRAINT lockwood_store_legacy_known CHECK (legacy IN ('open', 'closed'))
);

-- It is closed to legacy records from the start if the constraints are there.
INSERT INTO {{schema}}.lockwood_store (id, store_id, legacy, created_at)
SELECT 1, '{{store_id}}',
    CASE WHEN EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS c
        WHERE c.conrelid = '{{schema}}.ai_mcp_oauth_credentials'::regclass
            AND c.conname = 'lockwood_refresh_token_enc_format_1'
    ) THEN 'closed' ELSE 'open' END,
    now();

-- Data keys: every one ever made stays, so that its version is never reused.
CREATE TABLE {{schema}}.lockwood_data_keys (
    key_id bytea NOT NULL,
    version bigint NOT NULL,
    state text NOT NULL,
    is_primary boolean NOT NULL,
    seals_reserved bigint NOT NULL,
    created_at timestamptz NOT NULL,
    destroyed_at timestamptz,
    CONSTRAINT lockwood_data_keys_pkey PRIMARY KEY (key_id),
    CONSTRAINT lockwood_data_keys_version_key UNIQUE (version),
    CONSTRAINT lockwood_data_keys_key_id_size CHECK (octet_length(key_id) = 16),
    CONSTRAINT lockwood_data_keys_version_positive CHECK (version >= 1),
    CONSTRAINT lockwood_data_keys_state_known CHECK (state IN ('enabled', 'destroyed')),
    CONSTRAINT lockwood_data_keys_primary_enabled CHECK (NOT is_primary OR state = 'enabled'),
    CONSTRAINT lockwood_data_keys_seals_not_negative CHECK (seals_reserved >= 0),
    CONSTRAINT lockwood_data_keys_destroyed_at_set CHECK ((state = 'destroyed') = (destroyed_at IS NOT NULL))
);

CREATE UNIQUE INDEX lockwood_data_keys_one_primary
    ON {{schema}}.lockwood_data_keys (is_primary) WHERE is_primary;

CREATE TABLE {{schema}}.lockwood_data_key_wraps (
    key_id bytea NOT NULL,
    kek_id text NOT NULL,
    wrapped bytea NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT lockwood_data_key_wraps_pkey PRIMARY KEY (key_id, kek_id),
    CONSTRAINT lockwood_data_key_wraps_key_id_fkey FOREIGN KEY (key_id)
        REFERENCES {{schema}}.lockwood_data_keys (key_id) ON UPDATE RESTRICT ON DELETE RESTRICT,
    CONSTRAINT lockwood_data_key_wraps_kek_id_size CHECK (octet_length(kek_id) BETWEEN 1 AND 1024),
    CONSTRAINT lockwood_data_key_wraps_wrapped_size CHECK (octet_length(wrapped) BETWEEN 1 AND 16384)
);

CREATE TABLE {{schema}}.lockwood_instances (
    id text NOT NULL,
    hostname text NOT NULL,
    kek_ids text[] NOT NULL,
    state text NOT NULL,
    config_hash text NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    CONSTRAINT lockwood_instances_pkey PRIMARY KEY (id)
);

-- What never changes. These triggers stop mistakes, ours and an operator's; they
-- do not stop an attacker who may drop them, which is the ring's task.
CREATE FUNCTION {{schema}}.lockwood_store_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'lockwood: the row of the store is never deleted';
    END IF;
    IF NEW.store_id <> OLD.store_id THEN
        RAISE EXCEPTION 'lockwood: the store ID never changes, every wrap is bound to it';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER lockwood_store_guard
    BEFORE UPDATE OR DELETE ON {{schema}}.lockwood_store
    FOR EACH ROW EXECUTE FUNCTION {{schema}}.lockwood_store_guard();

CREATE FUNCTION {{schema}}.lockwood_data_keys_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'lockwood: data keys are destroyed, never deleted';
    END IF;
    IF NEW.key_id <> OLD.key_id OR NEW.version <> OLD.version THEN
        RAISE EXCEPTION 'lockwood: key ID and version of a data key never change';
    END IF;
    IF OLD.state = 'destroyed' AND NEW.state <> 'destroyed' THEN
        RAISE EXCEPTION 'lockwood: a destroyed data key never comes back';
    END IF;
    IF NEW.seals_reserved < OLD.seals_reserved THEN
        RAISE EXCEPTION 'lockwood: reserved seals are never given back';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER lockwood_data_keys_guard
    BEFORE UPDATE OR DELETE ON {{schema}}.lockwood_data_keys
    FOR EACH ROW EXECUTE FUNCTION {{schema}}.lockwood_data_keys_guard();

-- Writes a credential as the only one of its user and server, with a new id, and
-- returns whether it did. It is a function for speed alone: its plan is kept by
-- the server connection, which without named prepared statements a statement's
-- plan is not, and planning this one costs more than running it.
--
-- p_key_id is the data key that sealed the records, NULL if they are legacy. Its
-- row is locked against destruction until the transaction ends. Where a
-- destruction is under way, the lock waits for it and then looks at the row as
-- it was left, so a key that is gone yields no row, and nothing is written. FOR
-- KEY SHARE lets all writers pass each other, and the reservation of seals too.
CREATE FUNCTION {{schema}}.lockwood_upsert_credential(
    p_user_id bigint, p_mcp_server_id text, p_refresh_token_enc bytea, p_client_id text, p_client_secret_enc bytea,
    p_client_secret_expires_at timestamptz, p_token_endpoint text, p_token_endpoint_auth_method text, p_scopes text,
    p_key_id bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    WITH data_key AS (
        SELECT FROM {{schema}}.lockwood_data_keys
        WHERE key_id = p_key_id AND state = 'enabled'
        FOR KEY SHARE
    )
    INSERT INTO {{schema}}.ai_mcp_oauth_credentials (
        user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at,
        token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at
    )
    SELECT p_user_id, p_mcp_server_id, p_refresh_token_enc, p_client_id, p_client_secret_enc, p_client_secret_expires_at,
        p_token_endpoint, p_token_endpoint_auth_method, p_scopes,
        date_trunc('milliseconds', now()), date_trunc('milliseconds', now())
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
        updated_at = excluded.updated_at;
    RETURN FOUND;
END
$$;
