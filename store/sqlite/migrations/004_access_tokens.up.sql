-- The access token of each credential, and the lease under which one is fetched: see
-- docs/format.md, section 5.1, for the records, and access/protocol for the rules.
--
-- credential_id is the ai_mcp_oauth_credentials.id that all other columns are about.
-- There is no foreign key: upstream writes to that table too, and a row of another id
-- says nothing any more. Times are milliseconds since 1970.
CREATE TABLE lockwood_access_tokens (
    user_id INTEGER NOT NULL,
    mcp_server_id TEXT NOT NULL,
    credential_id INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    holder TEXT,
    lease_until INTEGER,
    result_generation INTEGER NOT NULL DEFAULT 0,
    access_token_enc BLOB,
    expires_at INTEGER,
    scope TEXT,
    rejected INTEGER NOT NULL DEFAULT 0,
    refreshed_at INTEGER,
    writer_generation INTEGER NOT NULL DEFAULT 0,
    written_mark_enc BLOB,
    verdict TEXT NOT NULL DEFAULT '',
    judged_mark_enc BLOB,
    failures INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER,
    forced INTEGER NOT NULL DEFAULT 0,
    forced_until INTEGER,
    CONSTRAINT lockwood_access_tokens_pkey PRIMARY KEY (user_id, mcp_server_id),
    CONSTRAINT lockwood_access_tokens_lease CHECK ((holder IS NULL) = (lease_until IS NULL)),
    CONSTRAINT lockwood_access_tokens_rejected_boolean CHECK (rejected IN (0, 1)),
    CONSTRAINT lockwood_access_tokens_verdict_known CHECK (verdict IN (
        '', 'refused', 'failed', 'unavailable', 'unknown', 'invalid_grant', 'invalid_client', 'unauthorized_client'
    )),
    CONSTRAINT lockwood_access_tokens_counts_not_negative CHECK (failures >= 0 AND forced >= 0),
    CONSTRAINT lockwood_access_tokens_access_token_magic CHECK (substr(access_token_enc, 1, 4) = x'4c4b5731'),
    CONSTRAINT lockwood_access_tokens_written_mark_magic CHECK (substr(written_mark_enc, 1, 4) = x'4c4b5731'),
    CONSTRAINT lockwood_access_tokens_judged_mark_magic CHECK (substr(judged_mark_enc, 1, 4) = x'4c4b5731')
) STRICT;

-- The last generation that was given out. No number is used twice, not even after a row
-- was deleted.
ALTER TABLE lockwood_store ADD COLUMN last_generation INTEGER NOT NULL DEFAULT 0;

-- A data key that is destroyed takes these records along. The versions that know the
-- table do so themselves; this is for those that do not, and may run beside.
CREATE TRIGGER lockwood_clear_access_tokens
BEFORE UPDATE ON lockwood_data_keys WHEN NEW.state = 'destroyed' AND OLD.state <> 'destroyed'
BEGIN
    UPDATE lockwood_access_tokens SET access_token_enc = NULL, expires_at = NULL, scope = NULL
    WHERE substr(access_token_enc, 5, 16) = NEW.key_id;
    UPDATE lockwood_access_tokens SET written_mark_enc = NULL
    WHERE substr(written_mark_enc, 5, 16) = NEW.key_id;
    UPDATE lockwood_access_tokens SET judged_mark_enc = NULL
    WHERE substr(judged_mark_enc, 5, 16) = NEW.key_id;
END;
