-- Only the token of that result is meant.
UPDATE lockwood_access_tokens SET rejected = 1
WHERE user_id = ?1 AND mcp_server_id = ?2 AND credential_id = ?3 AND result_generation = ?4
