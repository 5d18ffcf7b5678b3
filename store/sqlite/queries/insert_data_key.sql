INSERT INTO lockwood_data_keys (key_id, version, state, is_primary, seals_reserved, created_at)
VALUES (?1, ?2, 'enabled', 1, 0, strftime({{time_format}}, 'now'))
