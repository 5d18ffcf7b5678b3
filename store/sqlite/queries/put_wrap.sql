INSERT INTO lockwood_data_key_wraps (key_id, kek_id, wrapped, created_at)
SELECT key_id, ?2, ?3, strftime({{time_format}}, 'now') FROM lockwood_data_keys WHERE key_id = ?1 AND state = 'enabled'
ON CONFLICT (key_id, kek_id) DO UPDATE SET wrapped = excluded.wrapped, created_at = excluded.created_at
