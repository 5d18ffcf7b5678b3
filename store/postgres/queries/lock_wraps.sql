-- Excludes others who remove wraps of the key, and its destruction, but not those
-- who write under it.
SELECT FROM {{schema}}.lockwood_data_keys
WHERE key_id = $1::bytea AND state = 'enabled'
FOR NO KEY UPDATE
