-- $1 and $2 are the filter, NULL for all. A verdict on another credential than the one
-- that is there says nothing any more.
UPDATE {{schema}}.lockwood_access_tokens AS a SET next_attempt_at = NULL, failures = 0
FROM {{schema}}.ai_mcp_oauth_credentials AS c
WHERE a.user_id = c.user_id AND a.mcp_server_id = c.mcp_server_id AND a.credential_id = c.id
    AND ($1::bigint IS NULL OR a.user_id = $1::bigint) AND ($2::text IS NULL OR a.mcp_server_id = $2::text)
    AND {{is_dead}} AND a.next_attempt_at > now()
