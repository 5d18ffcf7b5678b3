-- Rows that were not seen for a day go; another beat may be removing them too.
WITH gone AS (
    DELETE FROM {{schema}}.lockwood_instances WHERE id IN (
        SELECT id FROM {{schema}}.lockwood_instances
        WHERE last_seen < now() - interval '1 day' AND id <> $1::text
        FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO {{schema}}.lockwood_instances (id, hostname, kek_ids, state, config_hash, version, writes_legacy, started_at, last_seen)
VALUES ($1::text, $2::text, $3::text[], $4::text, $5::text, $6::text, $7::boolean, now(), now())
ON CONFLICT (id) DO UPDATE SET
    hostname = excluded.hostname,
    kek_ids = excluded.kek_ids,
    state = excluded.state,
    config_hash = excluded.config_hash,
    version = excluded.version,
    writes_legacy = excluded.writes_legacy,
    last_seen = excluded.last_seen
