-- The outcome of a grant that brought nothing. What is still valid stays.
UPDATE lockwood_access_tokens SET
    verdict = ?5,
    judged_mark_enc = ?6,
    failures = failures + 1,
    next_attempt_at = {{now}} + ?7,
    holder = CASE WHEN holder = ?4 THEN NULL ELSE holder END,
    lease_until = CASE WHEN holder = ?4 THEN NULL ELSE lease_until END
WHERE user_id = ?1 AND mcp_server_id = ?2 AND generation = ?3
