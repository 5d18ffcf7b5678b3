-- A lease that has run out may still be renewed. An hour after its end, $5, nobody does.
DELETE FROM {{schema}}.lockwood_access_tokens AS a
WHERE a.user_id = $1::bigint AND a.mcp_server_id = $2::text AND a.credential_id = $3::bigint AND a.generation = $4::bigint
    AND (a.holder IS NULL OR a.lease_until < clock_timestamp() - make_interval(secs => $5::float8))
    AND NOT EXISTS (
        SELECT FROM {{schema}}.ai_mcp_oauth_credentials AS c WHERE c.user_id = a.user_id AND c.mcp_server_id = a.mcp_server_id
    )
