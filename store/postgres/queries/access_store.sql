-- The outcome of a grant that brought an access token, $5, or at least a refresh token,
-- $8. Who holds the lease of the generation gives it back.
UPDATE {{schema}}.lockwood_access_tokens SET
    result_generation = $3::bigint,
    access_token_enc = $5::bytea,
    expires_at = clock_timestamp() + make_interval(secs => $6::float8),
    scope = $7::text,
    rejected = false,
    refreshed_at = CASE WHEN $10::text = '' THEN clock_timestamp() ELSE refreshed_at END,
    writer_generation = CASE WHEN $8::boolean THEN $3::bigint ELSE writer_generation END,
    written_mark_enc = CASE WHEN $8::boolean THEN $9::bytea ELSE written_mark_enc END,
    verdict = $10::text,
    judged_mark_enc = NULL,
    failures = CASE WHEN $10::text = '' THEN 0 ELSE failures + 1 END,
    next_attempt_at = clock_timestamp() + make_interval(secs => $11::float8),
    holder = CASE WHEN generation = $3::bigint AND holder = $4::text THEN NULL ELSE holder END,
    lease_until = CASE WHEN generation = $3::bigint AND holder = $4::text THEN NULL ELSE lease_until END
WHERE user_id = $1::bigint AND mcp_server_id = $2::text
