-- Conflicts with the FOR KEY SHARE of every writer under the key.
SELECT state, is_primary FROM {{schema}}.lockwood_data_keys
WHERE key_id = $1::bytea
FOR UPDATE
