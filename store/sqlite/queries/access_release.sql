UPDATE lockwood_access_tokens SET holder = NULL, lease_until = NULL
WHERE user_id = ?1 AND mcp_server_id = ?2 AND generation = ?3 AND holder = ?4
