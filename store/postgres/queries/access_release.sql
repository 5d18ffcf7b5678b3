UPDATE {{schema}}.lockwood_access_tokens SET holder = NULL, lease_until = NULL
WHERE user_id = $1::bigint AND mcp_server_id = $2::text AND generation = $3::bigint AND holder = $4::text
