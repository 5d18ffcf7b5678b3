-- The binaries of before use lockwood_upsert_credential, which is still there.
DROP FUNCTION {{schema}}.lockwood_upsert_credential_4;
DROP FUNCTION {{schema}}.lockwood_check_quota_4;
