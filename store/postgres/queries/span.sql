SELECT min(id), max(id) FROM {{schema}}.ai_mcp_oauth_credentials
