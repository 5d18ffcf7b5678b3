SELECT EXISTS (SELECT FROM {{schema}}.lockwood_data_key_wraps WHERE key_id = $1::bytea)
