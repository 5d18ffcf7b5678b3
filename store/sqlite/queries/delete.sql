DELETE FROM ai_mcp_oauth_credentials
WHERE user_id = ?1 AND mcp_server_id = ?2
