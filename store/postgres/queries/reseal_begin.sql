INSERT INTO {{schema}}.lockwood_reseal (
    id, run_id, target, max_rate, planned, ended, total, done, skipped, failed, next_at, started_at, updated_at
)
VALUES (1, $1::text, $2::bytea, $3::bigint, false, false, 0, 0, 0, 0, now(), now(), now())
ON CONFLICT (id) DO UPDATE SET
    run_id = excluded.run_id,
    target = excluded.target,
    max_rate = excluded.max_rate,
    planned = excluded.planned,
    ended = excluded.ended,
    total = excluded.total,
    done = excluded.done,
    skipped = excluded.skipped,
    failed = excluded.failed,
    next_at = excluded.next_at,
    started_at = excluded.started_at,
    updated_at = excluded.updated_at
