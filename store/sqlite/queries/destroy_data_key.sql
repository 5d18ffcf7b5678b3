UPDATE lockwood_data_keys SET state = 'destroyed', destroyed_at = strftime({{time_format}}, 'now')
WHERE key_id = ?1
