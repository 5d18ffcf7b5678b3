INSERT INTO {{schema}}.lockwood_data_keys (key_id, version, state, is_primary, seals_reserved, created_at)
VALUES ($1::bytea, $2::bigint, 'enabled', true, 0, now())
