-- The lock that a deposit takes: against destruction, and passing all others.
SELECT FROM {{schema}}.lockwood_data_keys
WHERE key_id = $1::bytea AND state = 'enabled'
FOR KEY SHARE
