-- Only the token of that result is meant.
UPDATE {{schema}}.lockwood_access_tokens SET rejected = true
WHERE user_id = $1::bigint AND mcp_server_id = $2::text AND credential_id = $3::bigint AND result_generation = $4::bigint
