SELECT coalesce(max(id), 0), count(*) FROM (
    SELECT id FROM {{schema}}.ai_mcp_oauth_credentials
    WHERE id > $1::bigint AND ({{stale}})
    ORDER BY id
    LIMIT $2::bigint
) AS cut
