-- A credential and its access token in one snapshot. Times are milliseconds from now; the
-- end of the lease is also a number, to be told from another.
SELECT c.id, c.token_endpoint, a.user_id IS NOT NULL,
    coalesce(a.credential_id, 0), coalesce(a.generation, 0), coalesce(a.holder, ''),
    coalesce(a.lease_until, 0), coalesce(a.lease_until > {{now}}, 0),
    coalesce(a.result_generation, 0), a.access_token_enc, a.expires_at - {{now}}, a.scope, coalesce(a.rejected, 0),
    coalesce(a.writer_generation, 0), a.written_mark_enc, coalesce(a.verdict, ''), a.judged_mark_enc, coalesce(a.failures, 0),
    a.next_attempt_at - {{now}}, coalesce(a.forced, 0), a.forced_until - {{now}}
FROM ai_mcp_oauth_credentials AS c
LEFT JOIN lockwood_access_tokens AS a ON a.user_id = c.user_id AND a.mcp_server_id = c.mcp_server_id
WHERE c.user_id = ?1 AND c.mcp_server_id = ?2
