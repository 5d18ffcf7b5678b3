UPDATE {{schema}}.lockwood_data_keys SET state = 'destroyed', destroyed_at = now()
WHERE key_id = $1::bytea
