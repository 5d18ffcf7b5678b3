-- The revision of the ring: another number after every change of what load_ring.sql
-- returns, so that an instance which looks every few seconds reads one number, and the
-- ring only when it changed. It is by trigger, so that a version which does not know the
-- revision changes it too.
--
-- The number is about the time in milliseconds since 1970: a database that was restored
-- does not come back to one that was seen.
ALTER TABLE lockwood_store ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;

CREATE TRIGGER lockwood_revise_data_keys_insert
AFTER INSERT ON lockwood_data_keys
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER lockwood_revise_data_keys_update
AFTER UPDATE ON lockwood_data_keys
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER lockwood_revise_data_keys_delete
AFTER DELETE ON lockwood_data_keys
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER lockwood_revise_data_key_wraps_insert
AFTER INSERT ON lockwood_data_key_wraps
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER lockwood_revise_data_key_wraps_update
AFTER UPDATE ON lockwood_data_key_wraps
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER lockwood_revise_data_key_wraps_delete
AFTER DELETE ON lockwood_data_key_wraps
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER lockwood_revise_compromised_insert
AFTER INSERT ON lockwood_compromised
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER lockwood_revise_compromised_update
AFTER UPDATE ON lockwood_compromised
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER lockwood_revise_compromised_delete
AFTER DELETE ON lockwood_compromised
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;

CREATE TRIGGER lockwood_revise_store
AFTER UPDATE OF legacy ON lockwood_store WHEN OLD.legacy <> NEW.legacy
BEGIN
    UPDATE lockwood_store SET revision = max(revision + 1, CAST(unixepoch('subsec') * 1000 AS INTEGER));
END;
