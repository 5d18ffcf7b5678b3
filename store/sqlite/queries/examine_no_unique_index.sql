-- The credential table, ?1, if nothing makes INSERT OR REPLACE replace.
SELECT t.name, ''
FROM main.sqlite_schema AS t
WHERE t.type = 'table' AND t.rootpage > 0 AND lower(t.name) = ?1 AND NOT EXISTS (
    SELECT 1 FROM pragma_index_list(t.name) AS i
    WHERE i."unique" AND NOT i.partial
        AND (SELECT group_concat(name, ' ' ORDER BY name) FROM pragma_index_info(i.name)) = 'mcp_server_id user_id'
)
