-- What stands in the place of a table whose name is in the JSON array ?1: a view, a
-- virtual table, or a temporary object, which a statement would find first.
SELECT name, CASE type WHEN 'table' THEN 'virtual table' ELSE type END
FROM main.sqlite_schema
WHERE type IN ('table', 'view') AND rootpage = 0 AND lower(name) IN (SELECT value FROM json_each(?1))
UNION ALL
SELECT name, 'temporary ' || type
FROM temp.sqlite_schema
WHERE type IN ('table', 'view') AND lower(name) IN (SELECT value FROM json_each(?1))
