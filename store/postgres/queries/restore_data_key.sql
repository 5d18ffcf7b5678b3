-- A key of the same version is the same key.
INSERT INTO {{schema}}.lockwood_data_keys (key_id, version, state, is_primary, seals_reserved, created_at)
VALUES ($1::bytea, $2::bigint, 'enabled', false, $3::bigint, $4::timestamptz)
ON CONFLICT (key_id) DO UPDATE SET
    state = 'enabled',
    destroyed_at = NULL,
    seals_reserved = greatest(lockwood_data_keys.seals_reserved, excluded.seals_reserved)
WHERE lockwood_data_keys.version = excluded.version
