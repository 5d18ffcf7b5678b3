-- The generic cell rate algorithm, without a burst: next_at is when the rows that
-- were let through so far are through at max_rate, and moves on by the time that
-- these take. The answer is how many seconds are left until its old value, and
-- not above zero if nobody has to wait.
UPDATE lockwood_reseal SET
    next_at = coalesce(max(next_at, unixepoch('now', 'subsec')) + CAST(?2 AS REAL) / nullif(max_rate, 0), next_at),
    updated_at = strftime({{time_format}}, 'now')
WHERE run_id = ?1 AND NOT ended
RETURNING coalesce(next_at - unixepoch('now', 'subsec') - CAST(?2 AS REAL) / nullif(max_rate, 0), 0.0)
