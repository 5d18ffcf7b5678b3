-- Format-1 records cannot be opened without these tables: rewrite them as legacy
-- records, or delete them, first.
DROP FUNCTION {{schema}}.lockwood_upsert_credential;
DROP TABLE {{schema}}.lockwood_instances;
DROP TABLE {{schema}}.lockwood_data_key_wraps;
DROP TABLE {{schema}}.lockwood_data_keys;
DROP TABLE {{schema}}.lockwood_store;
DROP FUNCTION {{schema}}.lockwood_data_keys_guard();
DROP FUNCTION {{schema}}.lockwood_store_guard();
