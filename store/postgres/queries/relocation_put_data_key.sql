INSERT INTO {{schema}}.lockwood_data_keys (key_id, version, state, is_primary, seals_reserved, created_at, destroyed_at)
VALUES ($1::bytea, $2::bigint, $3::text, $4::boolean, $5::bigint, $6::timestamptz, $7::timestamptz)
ON CONFLICT (key_id) DO NOTHING
