-- The generic cell rate algorithm, without a burst: next_at is when the rows that
-- were let through so far are through at max_rate, and moves on by the time that
-- these take. The answer is how many seconds are left until its old value, and
-- not above zero if nobody has to wait.
UPDATE {{schema}}.lockwood_reseal SET
    next_at = coalesce(greatest(next_at, now()) + make_interval(secs => $2::double precision / nullif(max_rate, 0)), next_at),
    updated_at = now()
WHERE run_id = $1::text AND NOT ended
RETURNING coalesce(extract(epoch FROM next_at - now())::double precision - $2::double precision / nullif(max_rate, 0), 0)
