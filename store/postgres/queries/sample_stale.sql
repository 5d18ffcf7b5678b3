SELECT count(*), count(CASE WHEN {{stale}} THEN 1 END), coalesce(max(id), 0) FROM (
    SELECT * FROM {{schema}}.ai_mcp_oauth_credentials
    WHERE id > $1::bigint
    ORDER BY id
    LIMIT $2::bigint
) AS sample
