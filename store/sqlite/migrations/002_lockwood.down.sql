-- Format-1 records cannot be opened without these tables: rewrite them as legacy
-- records, or delete them, first. Dropping a table deletes its rows, so the
-- guards go before it.
DROP TRIGGER lockwood_data_keys_guard_delete;
DROP TRIGGER lockwood_store_guard_delete;
DROP TABLE lockwood_instances;
DROP TABLE lockwood_data_key_wraps;
DROP TABLE lockwood_data_keys;
DROP TABLE lockwood_store;
