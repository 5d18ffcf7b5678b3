-- The table of applied migrations; goose writes to it.
CREATE TABLE {{schema}}.lockwood_migrations (
    version bigint NOT NULL,
    applied_at timestamptz NOT NULL,
    CONSTRAINT lockwood_migrations_pkey PRIMARY KEY (version)
);
