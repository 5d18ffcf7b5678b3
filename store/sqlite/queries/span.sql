SELECT min(id), max(id) FROM ai_mcp_oauth_credentials
