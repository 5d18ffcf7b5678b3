UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'ai_mcp_oauth_credentials'
