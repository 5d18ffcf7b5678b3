SELECT count(*), count(CASE WHEN {{stale}} THEN 1 END), coalesce(max(id), 0) FROM (
    SELECT * FROM ai_mcp_oauth_credentials
    WHERE id > ?1
    ORDER BY id
    LIMIT ?2
) AS sample
