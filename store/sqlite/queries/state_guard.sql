SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = 'lockwood_data_keys_guard_state'
