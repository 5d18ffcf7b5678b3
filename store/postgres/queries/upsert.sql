-- See the function in migrations/004_quota.up.sql. The casts are those of its
-- parameters, so that no other function of the name can be a better match.
SELECT {{schema}}.lockwood_upsert_credential_4(
    $1::bigint, $2::text, $3::bytea, $4::text, $5::bytea, $6::timestamptz, $7::text, $8::text, $9::text, $10::bytea, $11::bigint
)
