DELETE FROM {{schema}}.ai_mcp_oauth_credentials
WHERE user_id = $1::bigint AND mcp_server_id = $2::text
