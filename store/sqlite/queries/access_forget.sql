-- With a credential goes what was fetched with it. The row stays for its generation,
-- while a grant may be under way.
UPDATE lockwood_access_tokens SET
    access_token_enc = NULL, expires_at = NULL, scope = NULL, writer_generation = 0, written_mark_enc = NULL,
    verdict = '', judged_mark_enc = NULL, failures = 0, next_attempt_at = NULL
WHERE user_id = ?1 AND mcp_server_id = ?2
