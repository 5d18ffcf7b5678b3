-- A lease that has run out and that nobody took is renewed too.
UPDATE {{schema}}.lockwood_access_tokens SET lease_until = clock_timestamp() + make_interval(secs => $5::float8)
WHERE user_id = $1::bigint AND mcp_server_id = $2::text AND generation = $3::bigint AND holder = $4::text
