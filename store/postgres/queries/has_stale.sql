SELECT EXISTS (SELECT FROM {{schema}}.ai_mcp_oauth_credentials WHERE {{stale}})
