SELECT state FROM {{schema}}.lockwood_data_keys WHERE key_id = $1::bytea
