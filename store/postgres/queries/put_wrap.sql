-- The data key is locked as where a credential is written: a wrap never joins a destroyed key.
WITH data_key AS (
    SELECT key_id FROM {{schema}}.lockwood_data_keys
    WHERE key_id = $1::bytea AND state = 'enabled'
    FOR KEY SHARE
)
INSERT INTO {{schema}}.lockwood_data_key_wraps (key_id, kek_id, wrapped, created_at)
SELECT key_id, $2::text, $3::bytea, now() FROM data_key
ON CONFLICT (key_id, kek_id) DO UPDATE SET wrapped = excluded.wrapped, created_at = excluded.created_at
