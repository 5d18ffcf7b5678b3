-- A credential and its access token in one snapshot. Times are seconds from now; the end
-- of the lease is also a number, to be told from another.
SELECT c.id, c.token_endpoint, a.user_id IS NOT NULL,
    coalesce(a.credential_id, 0), coalesce(a.generation, 0), coalesce(a.holder, ''),
    coalesce((extract(epoch FROM a.lease_until) * 1000000)::bigint, 0), coalesce(a.lease_until > now(), false),
    coalesce(a.result_generation, 0), a.access_token_enc, extract(epoch FROM a.expires_at - now())::float8, a.scope, coalesce(a.rejected, false),
    coalesce(a.writer_generation, 0), a.written_mark_enc, coalesce(a.verdict, ''), a.judged_mark_enc, coalesce(a.failures, 0),
    extract(epoch FROM a.next_attempt_at - now())::float8, coalesce(a.forced, 0), extract(epoch FROM a.forced_until - now())::float8
FROM {{schema}}.ai_mcp_oauth_credentials AS c
LEFT JOIN {{schema}}.lockwood_access_tokens AS a ON a.user_id = c.user_id AND a.mcp_server_id = c.mcp_server_id
WHERE c.user_id = $1::bigint AND c.mcp_server_id = $2::text
