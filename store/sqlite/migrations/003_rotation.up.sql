-- The re-seal that is under way, or the last one: at most one row. next_at is in
-- seconds since 1970, since what a row may take is less than a millisecond.
CREATE TABLE lockwood_reseal (
    id INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    target BLOB,
    max_rate INTEGER NOT NULL,
    planned INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    total INTEGER NOT NULL,
    done INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    next_at REAL NOT NULL,
    started_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    CONSTRAINT lockwood_reseal_pkey PRIMARY KEY (id),
    CONSTRAINT lockwood_reseal_one_row CHECK (id = 1),
    CONSTRAINT lockwood_reseal_run_id_set CHECK (run_id <> ''),
    CONSTRAINT lockwood_reseal_target_size CHECK (length(target) = 16),
    CONSTRAINT lockwood_reseal_max_rate_not_negative CHECK (max_rate >= 0),
    CONSTRAINT lockwood_reseal_planned_boolean CHECK (planned IN (0, 1)),
    CONSTRAINT lockwood_reseal_ended_boolean CHECK (ended IN (0, 1)),
    CONSTRAINT lockwood_reseal_counts_not_negative CHECK (total >= 0 AND done >= 0 AND skipped >= 0 AND failed >= 0)
) STRICT;

-- KEKs that an operator named compromised, by the part of the KEK ID before '#'.
CREATE TABLE lockwood_compromised (
    kek_key TEXT NOT NULL,
    named_at TEXT NOT NULL,
    CONSTRAINT lockwood_compromised_pkey PRIMARY KEY (kek_key),
    CONSTRAINT lockwood_compromised_kek_key_size CHECK (octet_length(kek_key) BETWEEN 1 AND 1024)
) STRICT;

-- The report of the last rotation, in JSON; NULL until there was one.
ALTER TABLE lockwood_store ADD COLUMN report TEXT;

-- With a default, since an older binary that still runs does not write it.
ALTER TABLE lockwood_instances ADD COLUMN writes_legacy INTEGER NOT NULL DEFAULT 0
    CONSTRAINT lockwood_instances_writes_legacy_boolean CHECK (writes_legacy IN (0, 1));
