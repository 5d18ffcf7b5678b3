-- With the credential goes what was fetched with it, before it, which is the order of
-- locks in which the outcome of a grant is written. The row stays for its generation,
-- while a grant may be under way.
WITH cleared AS (
    UPDATE {{schema}}.lockwood_access_tokens SET
        access_token_enc = NULL, expires_at = NULL, scope = NULL, writer_generation = 0, written_mark_enc = NULL,
        verdict = '', judged_mark_enc = NULL, failures = 0, next_attempt_at = NULL
    WHERE user_id = $1::bigint AND mcp_server_id = $2::text
    RETURNING 1
)
DELETE FROM {{schema}}.ai_mcp_oauth_credentials USING (SELECT count(*) FROM cleared) AS first
WHERE user_id = $1::bigint AND mcp_server_id = $2::text
