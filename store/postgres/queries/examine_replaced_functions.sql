-- Schemas before pg_catalog in the search path, $1, that have a function or an
-- operator of a name that pg_catalog has.
SELECT pg_catalog.quote_ident(n.nspname), ''
FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS path (name, place)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = path.name
WHERE path.place < (SELECT min(place) FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS p (name, place) WHERE p.name = 'pg_catalog')
    AND (
        EXISTS (
            SELECT FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_operator AS c ON c.oprname = o.oprname
            WHERE o.oprnamespace = n.oid AND c.oprnamespace = 'pg_catalog'::pg_catalog.regnamespace
        )
        OR EXISTS (
            SELECT FROM pg_catalog.pg_proc AS f JOIN pg_catalog.pg_proc AS c ON c.proname = f.proname
            WHERE f.pronamespace = n.oid AND c.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
        )
    )
ORDER BY path.place
