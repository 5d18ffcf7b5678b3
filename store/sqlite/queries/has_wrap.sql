SELECT EXISTS (SELECT 1 FROM lockwood_data_key_wraps WHERE key_id = ?1)
