UPDATE lockwood_data_keys SET is_primary = 0
WHERE key_id = ?1 AND is_primary
