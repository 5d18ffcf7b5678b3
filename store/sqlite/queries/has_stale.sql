SELECT EXISTS (SELECT 1 FROM ai_mcp_oauth_credentials WHERE {{stale}})
