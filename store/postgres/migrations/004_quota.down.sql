-- The binaries of before use lockwood_upsert_credential, which is still there.
DROP FUNCTION {{schema}}.lockwood_upsert_credential_4;
