-- A lease that has run out and that nobody took is renewed too.
UPDATE lockwood_access_tokens SET lease_until = {{now}} + ?5
WHERE user_id = ?1 AND mcp_server_id = ?2 AND generation = ?3 AND holder = ?4
