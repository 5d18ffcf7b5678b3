-- Times are text, YYYY-MM-DD HH:MM:SS.mmm +00:00, as upstream writes them.
--
-- The store itself: one row.
CREATE TABLE lockwood_store (
    id INTEGER NOT NULL,
    store_id TEXT NOT NULL,
    legacy TEXT NOT NULL,
    created_at TEXT NOT NULL,
    CONSTRAINT lockwood_store_pkey PRIMARY KEY (id),
    CONSTRAINT lockwood_store_one_row CHECK (id = 1),
    CONSTRAINT lockwood_store_store_id_set CHECK (store_id <> ''),
    CONSTRAINT lockwood_store_legacy_known CHECK (legacy IN ('open', 'closed'))
) STRICT;

-- It is closed to legacy records from the start if the triggers are there.
INSERT INTO lockwood_store (id, store_id, legacy, created_at)
SELECT 1, '{{store_id}}',
    CASE WHEN EXISTS (
        SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = 'lockwood_format_1_insert'
    ) THEN 'closed' ELSE 'open' END,
    strftime({{time_format}}, 'now');

-- Data keys: every one ever made stays, so that its version is never reused.
CREATE TABLE lockwood_data_keys (
    key_id BLOB NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    is_primary INTEGER NOT NULL,
    seals_reserved INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    destroyed_at TEXT,
    CONSTRAINT lockwood_data_keys_pkey PRIMARY KEY (key_id),
    CONSTRAINT lockwood_data_keys_version_key UNIQUE (version),
    CONSTRAINT lockwood_data_keys_key_id_size CHECK (length(key_id) = 16),
    CONSTRAINT lockwood_data_keys_version_positive CHECK (version >= 1),
    CONSTRAINT lockwood_data_keys_state_known CHECK (state IN ('enabled', 'destroyed')),
    CONSTRAINT lockwood_data_keys_is_primary_boolean CHECK (is_primary IN (0, 1)),
    CONSTRAINT lockwood_data_keys_primary_enabled CHECK (NOT is_primary OR state = 'enabled'),
    CONSTRAINT lockwood_data_keys_seals_not_negative CHECK (seals_reserved >= 0),
    CONSTRAINT lockwood_data_keys_destroyed_at_set CHECK ((state = 'destroyed') = (destroyed_at IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX lockwood_data_keys_one_primary
    ON lockwood_data_keys (is_primary) WHERE is_primary;

CREATE TABLE lockwood_data_key_wraps (
    key_id BLOB NOT NULL,
    kek_id TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    created_at TEXT NOT NULL,
    CONSTRAINT lockwood_data_key_wraps_pkey PRIMARY KEY (key_id, kek_id),
    CONSTRAINT lockwood_data_key_wraps_key_id_fkey FOREIGN KEY (key_id)
        REFERENCES lockwood_data_keys (key_id) ON UPDATE RESTRICT ON DELETE RESTRICT,
    CONSTRAINT lockwood_data_key_wraps_kek_id_size CHECK (octet_length(kek_id) BETWEEN 1 AND 1024),
    CONSTRAINT lockwood_data_key_wraps_wrapped_size CHECK (length(wrapped) BETWEEN 1 AND 16384)
) STRICT;

-- The KEK IDs of an instance are a JSON array of strings.
CREATE TABLE lockwood_instances (
    id TEXT NOT NULL,
    hostname TEXT NOT NULL,
    kek_ids TEXT NOT NULL,
    state TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at TEXT NOT NULL,
    last_seen TEXT NOT NULL,
    CONSTRAINT lockwood_instances_pkey PRIMARY KEY (id)
) STRICT;

-- What never changes. These triggers stop mistakes, ours and an operator's; they
-- do not stop an attacker who may drop them, which is the ring's task.
CREATE TRIGGER lockwood_store_guard_update
BEFORE UPDATE ON lockwood_store WHEN NEW.store_id <> OLD.store_id
BEGIN
    SELECT RAISE(ABORT, 'lockwood: the store ID never changes, every wrap is bound to it');
END;

CREATE TRIGGER lockwood_store_guard_delete
BEFORE DELETE ON lockwood_store
BEGIN
    SELECT RAISE(ABORT, 'lockwood: the row of the store is never deleted');
END;

CREATE TRIGGER lockwood_data_keys_guard_identity
BEFORE UPDATE ON lockwood_data_keys WHEN NEW.key_id <> OLD.key_id OR NEW.version <> OLD.version
BEGIN
    SELECT RAISE(ABORT, 'lockwood: key ID and version of a data key never change');
END;

CREATE TRIGGER lockwood_data_keys_guard_state
BEFORE UPDATE ON lockwood_data_keys WHEN OLD.state = 'destroyed' AND NEW.state <> 'destroyed'
BEGIN
    SELECT RAISE(ABORT, 'lockwood: a destroyed data key never comes back');
END;

CREATE TRIGGER lockwood_data_keys_guard_seals
BEFORE UPDATE ON lockwood_data_keys WHEN NEW.seals_reserved < OLD.seals_reserved
BEGIN
    SELECT RAISE(ABORT, 'lockwood: reserved seals are never given back');
END;

CREATE TRIGGER lockwood_data_keys_guard_delete
BEFORE DELETE ON lockwood_data_keys
BEGIN
    SELECT RAISE(ABORT, 'lockwood: data keys are destroyed, never deleted');
END;
