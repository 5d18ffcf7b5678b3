-- See the function in migrations/004_quota.up.sql. Without casts, which the
-- server would parse at every call: the function says the types.
SELECT {{schema}}.lockwood_upsert_credential_4($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
