UPDATE {{schema}}.lockwood_data_keys SET is_primary = false
WHERE key_id = $1::bytea AND is_primary
