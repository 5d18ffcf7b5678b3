-- The re-seal that is under way, or the last one: at most one row.
CREATE TABLE {{schema}}.lockwood_reseal (
    id smallint NOT NULL,
    run_id text NOT NULL,
    target bytea,
    max_rate bigint NOT NULL,
    planned boolean NOT NULL,
    ended boolean NOT NULL,
    total bigint NOT NULL,
    done bigint NOT NULL,
    skipped bigint NOT NULL,
    failed bigint NOT NULL,
    next_at timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT lockwood_reseal_pkey PRIMARY KEY (id),
    CONSTRAINT lockwood_reseal_one_row CHECK (id = 1),
    CONSTRAINT lockwood_reseal_run_id_set CHECK (run_id <> ''),
    CONSTRAINT lockwood_reseal_target_size CHECK (octet_length(target) = 16),
    CONSTRAINT lockwood_reseal_max_rate_not_negative CHECK (max_rate >= 0),
    CONSTRAINT lockwood_reseal_counts_not_negative CHECK (total >= 0 AND done >= 0 AND skipped >= 0 AND failed >= 0)
);

-- KEKs that an operator named compromised, by the part of the KEK ID before '#'.
CREATE TABLE {{schema}}.lockwood_compromised (
    kek_key text NOT NULL,
    named_at timestamptz NOT NULL,
    CONSTRAINT lockwood_compromised_pkey PRIMARY KEY (kek_key),
    CONSTRAINT lockwood_compromised_kek_key_size CHECK (octet_length(kek_key) BETWEEN 1 AND 1024)
);

-- The report of the last rotation, in JSON; NULL until there was one.
ALTER TABLE {{schema}}.lockwood_store ADD COLUMN report text;

-- With a default, since an older binary that still runs does not write it.
ALTER TABLE {{schema}}.lockwood_instances ADD COLUMN writes_legacy boolean NOT NULL DEFAULT false;
