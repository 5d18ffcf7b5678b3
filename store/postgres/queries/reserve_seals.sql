-- The limit, $3, is compared by subtraction, which cannot overflow. The update
-- touches no key column, so it does not wait for those who write under the key.
UPDATE {{schema}}.lockwood_data_keys SET seals_reserved = seals_reserved + $2::bigint
WHERE key_id = $1::bytea AND state = 'enabled' AND seals_reserved <= $3::bigint - $2::bigint
