-- What the role may not do to the tables $2 that exist, to the sequence of the
-- credential table $4, if its id has a default that asks for the right, and to our
-- functions $5. The migrations, $3, are only read.
WITH tables AS (
    SELECT c.oid, c.relname, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p')
)
SELECT name, wanted FROM tables CROSS JOIN pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS wanted
WHERE NOT pg_catalog.has_any_column_privilege(oid, wanted) AND (relname <> $3::text OR wanted = 'SELECT')
UNION ALL
SELECT name, 'DELETE' FROM tables
WHERE NOT pg_catalog.has_table_privilege(oid, 'DELETE') AND relname <> $3::text
UNION ALL
SELECT 'SEQUENCE ' || s.oid::pg_catalog.regclass::text, 'USAGE'
FROM tables AS t JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attname = 'id' AND a.attidentity = ''
JOIN pg_catalog.pg_depend AS d ON d.refobjid = t.oid AND d.refobjsubid = a.attnum AND d.deptype = 'a' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
WHERE t.relname = $4::text AND CASE WHEN s.relkind = 'S' THEN NOT pg_catalog.has_sequence_privilege(s.oid, 'USAGE') END -- in this order
UNION ALL
SELECT 'FUNCTION ' || f.oid::pg_catalog.regprocedure::text, 'EXECUTE'
FROM pg_catalog.unnest($5::text[]) AS ours JOIN pg_catalog.pg_proc AS f ON f.oid = pg_catalog.to_regprocedure(ours)
WHERE NOT pg_catalog.has_function_privilege(f.oid, 'EXECUTE')
