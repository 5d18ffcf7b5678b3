-- Claims the lease with the generation ?12, if the row is as the caller read it: the
-- generation is ?6, the last result ?7, and nobody holds the lease; or the lease is that
-- of an older credential; or, if ?8, it ran out at ?9. Of another credential's grant
-- nothing stays.
INSERT INTO lockwood_access_tokens AS a (user_id, mcp_server_id, credential_id, generation, holder, lease_until)
SELECT ?1, ?2, ?3, ?12, ?4, {{now}} + ?5
WHERE ?6 = 0 OR EXISTS (SELECT 1 FROM lockwood_access_tokens WHERE user_id = ?1 AND mcp_server_id = ?2)
ON CONFLICT (user_id, mcp_server_id) DO UPDATE SET
    credential_id = excluded.credential_id,
    generation = excluded.generation,
    holder = excluded.holder,
    lease_until = excluded.lease_until,
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
        WHEN NOT ?10 THEN a.forced
        WHEN a.forced_until > {{now}} THEN a.forced + 1
        ELSE 1 END,
    forced_until = CASE
        WHEN NOT a.credential_id = excluded.credential_id THEN NULL
        WHEN NOT ?10 OR a.forced_until > {{now}} THEN a.forced_until
        ELSE {{now}} + ?11 END
WHERE a.generation = ?6 AND a.result_generation = ?7 AND CASE
    WHEN NOT a.credential_id = excluded.credential_id THEN excluded.credential_id > a.credential_id
    WHEN ?8 THEN a.lease_until <= {{now}} AND a.lease_until = ?9
    ELSE a.holder IS NULL END
