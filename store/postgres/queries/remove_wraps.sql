DELETE FROM {{schema}}.lockwood_data_key_wraps
WHERE key_id = $1::bytea AND kek_id = ANY ($2::text[])
