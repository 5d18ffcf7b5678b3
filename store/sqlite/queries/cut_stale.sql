SELECT coalesce(max(id), 0), count(*) FROM (
    SELECT id FROM ai_mcp_oauth_credentials
    WHERE id > ?1 AND ({{stale}})
    ORDER BY id
    LIMIT ?2
)
