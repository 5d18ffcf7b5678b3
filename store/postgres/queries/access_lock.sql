SELECT credential_id, generation, result_generation FROM {{schema}}.lockwood_access_tokens
WHERE user_id = $1::bigint AND mcp_server_id = $2::text
FOR UPDATE
