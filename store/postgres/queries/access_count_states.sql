SELECT {{state}} AS state, count(*)
FROM {{schema}}.ai_mcp_oauth_credentials AS c
LEFT JOIN {{schema}}.lockwood_access_tokens AS a
    ON a.user_id = c.user_id AND a.mcp_server_id = c.mcp_server_id AND a.credential_id = c.id
GROUP BY 1
