-- The outcome of a grant that brought nothing. What is still valid stays.
UPDATE {{schema}}.lockwood_access_tokens SET
    verdict = $5::text,
    judged_mark_enc = $6::bytea,
    failures = failures + 1,
    next_attempt_at = clock_timestamp() + make_interval(secs => $7::float8),
    holder = CASE WHEN holder = $4::text THEN NULL ELSE holder END,
    lease_until = CASE WHEN holder = $4::text THEN NULL ELSE lease_until END
WHERE user_id = $1::bigint AND mcp_server_id = $2::text AND generation = $3::bigint
