DELETE FROM {{schema}}.ai_mcp_oauth_credentials WHERE id = ANY($1::bigint[])
