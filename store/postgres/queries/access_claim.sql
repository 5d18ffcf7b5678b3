-- Claims the lease, if the row is as the caller read it: the generation is $6, the last
-- result $7, and nobody holds the lease; or the lease is that of an older credential; or,
-- if $8, it ran out at $9. Of another credential's grant nothing stays. It reads no
-- record: what it had to wait for may be another's outcome, which only a later statement
-- sees.
INSERT INTO {{schema}}.lockwood_access_tokens AS a (user_id, mcp_server_id, credential_id, holder, lease_until, forced, forced_until)
SELECT $1::bigint, $2::text, $3::bigint, $4::text, clock_timestamp() + make_interval(secs => $5::float8), 0, NULL
WHERE $6::bigint = 0 OR EXISTS (SELECT FROM {{schema}}.lockwood_access_tokens WHERE user_id = $1::bigint AND mcp_server_id = $2::text)
ON CONFLICT (user_id, mcp_server_id) DO UPDATE SET
    credential_id = excluded.credential_id,
    generation = excluded.generation,
    holder = excluded.holder,
    lease_until = clock_timestamp() + make_interval(secs => $5::float8),
    access_token_enc = CASE WHEN a.credential_id = excluded.credential_id THEN a.access_token_enc END,
    expires_at = CASE WHEN a.credential_id = excluded.credential_id THEN a.expires_at END,
    scope = CASE WHEN a.credential_id = excluded.credential_id THEN a.scope END,
    rejected = a.rejected AND a.credential_id = excluded.credential_id,
    refreshed_at = CASE WHEN a.credential_id = excluded.credential_id THEN a.refreshed_at END,
    writer_generation = CASE WHEN a.credential_id = excluded.credential_id THEN a.writer_generation ELSE 0 END,
    written_mark_enc = CASE WHEN a.credential_id = excluded.credential_id THEN a.written_mark_enc END,
    verdict = CASE WHEN a.credential_id = excluded.credential_id THEN a.verdict ELSE '' END,
    judged_mark_enc = CASE WHEN a.credential_id = excluded.credential_id THEN a.judged_mark_enc END,
    failures = CASE WHEN a.credential_id = excluded.credential_id THEN a.failures ELSE 0 END,
    next_attempt_at = CASE WHEN a.credential_id = excluded.credential_id THEN a.next_attempt_at END,
    forced = CASE
        WHEN NOT a.credential_id = excluded.credential_id THEN 0
        WHEN NOT $10::boolean THEN a.forced
        WHEN a.forced_until > clock_timestamp() THEN a.forced + 1
        ELSE 1 END,
    forced_until = CASE
        WHEN NOT a.credential_id = excluded.credential_id THEN NULL
        WHEN NOT $10::boolean OR a.forced_until > clock_timestamp() THEN a.forced_until
        ELSE clock_timestamp() + make_interval(secs => $11::float8) END
WHERE a.generation = $6::bigint AND a.result_generation = $7::bigint AND CASE
    WHEN NOT a.credential_id = excluded.credential_id THEN excluded.credential_id > a.credential_id
    WHEN $8::boolean THEN a.lease_until <= clock_timestamp() AND (extract(epoch FROM a.lease_until) * 1000000)::bigint = $9::bigint
    ELSE a.holder IS NULL END
RETURNING a.generation
