SELECT state FROM lockwood_data_keys WHERE key_id = ?1
