-- Affinity BLOB, by SQLite's rules: the type says so, or there is none.
SELECT t.name, c.name
FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c
WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\_%' ESCAPE '\' AND (upper(c.type) LIKE '%BLOB%' OR c.type = '')
ORDER BY t.name, c.name
