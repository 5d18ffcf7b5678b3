-- Read in a write transaction, which excludes every writer under the key.
SELECT state, is_primary FROM lockwood_data_keys WHERE key_id = ?1
