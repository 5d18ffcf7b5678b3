SELECT credential_id, generation, result_generation FROM lockwood_access_tokens
WHERE user_id = ?1 AND mcp_server_id = ?2
