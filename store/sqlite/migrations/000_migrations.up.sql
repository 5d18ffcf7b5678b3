-- The table of applied migrations; goose writes to it.
CREATE TABLE lockwood_migrations (
    version INTEGER NOT NULL,
    applied_at TEXT NOT NULL,
    CONSTRAINT lockwood_migrations_pkey PRIMARY KEY (version)
);
