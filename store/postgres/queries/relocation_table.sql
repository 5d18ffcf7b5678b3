-- The copy that this store is part of; see package relocation. The first copy makes the
-- table, and nobody else needs it.
CREATE TABLE IF NOT EXISTS {{schema}}.lockwood_relocation (
    id smallint NOT NULL,
    copy_id text NOT NULL,
    role text NOT NULL,
    phase text NOT NULL,
    peer text NOT NULL,
    changed_at timestamptz NOT NULL,
    CONSTRAINT lockwood_relocation_pkey PRIMARY KEY (id),
    CONSTRAINT lockwood_relocation_one_row CHECK (id = 1),
    CONSTRAINT lockwood_relocation_copy_id_set CHECK (copy_id <> ''),
    CONSTRAINT lockwood_relocation_role_known CHECK (role IN ('source', 'target')),
    CONSTRAINT lockwood_relocation_phase_known CHECK (phase IN ('closing', 'copying', 'moved', 'done'))
)
