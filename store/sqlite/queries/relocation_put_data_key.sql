INSERT INTO lockwood_data_keys (key_id, version, state, is_primary, seals_reserved, created_at, destroyed_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (key_id) DO NOTHING
