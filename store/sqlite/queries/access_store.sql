-- The outcome of a grant that brought an access token, ?5, or at least a refresh token,
-- ?8. Who holds the lease of the generation gives it back.
UPDATE lockwood_access_tokens SET
    result_generation = ?3,
    access_token_enc = ?5,
    expires_at = {{now}} + ?6,
    scope = ?7,
    rejected = 0,
    refreshed_at = CASE WHEN ?10 = '' THEN {{now}} ELSE refreshed_at END,
    writer_generation = CASE WHEN ?8 THEN ?3 ELSE writer_generation END,
    written_mark_enc = CASE WHEN ?8 THEN ?9 ELSE written_mark_enc END,
    verdict = ?10,
    judged_mark_enc = NULL,
    failures = CASE WHEN ?10 = '' THEN 0 ELSE failures + 1 END,
    next_attempt_at = {{now}} + ?11,
    holder = CASE WHEN generation = ?3 AND holder = ?4 THEN NULL ELSE holder END,
    lease_until = CASE WHEN generation = ?3 AND holder = ?4 THEN NULL ELSE lease_until END
WHERE user_id = ?1 AND mcp_server_id = ?2
