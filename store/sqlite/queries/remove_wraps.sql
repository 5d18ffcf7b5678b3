DELETE FROM lockwood_data_key_wraps
WHERE key_id = ?1 AND kek_id IN (SELECT value FROM json_each(?2))
