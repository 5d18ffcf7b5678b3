-- A key of the same version is the same key.
INSERT INTO lockwood_data_keys (key_id, version, state, is_primary, seals_reserved, created_at)
VALUES (?1, ?2, 'enabled', 0, ?3, ?4)
ON CONFLICT (key_id) DO UPDATE SET
    state = 'enabled',
    destroyed_at = NULL,
    seals_reserved = max(lockwood_data_keys.seals_reserved, excluded.seals_reserved)
WHERE lockwood_data_keys.version = excluded.version
