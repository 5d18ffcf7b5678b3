DELETE FROM ai_mcp_oauth_credentials WHERE id IN (SELECT value FROM json_each(?1))
