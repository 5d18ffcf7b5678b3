-- Functions with the name of one of ours, $2, whose parameters are not those that
-- our migrations gave it, $3.
SELECT p.oid::pg_catalog.regprocedure::text, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(p.proowner))
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = $1::text AND p.proname = ANY ($2::text[])
    AND NOT EXISTS (SELECT FROM pg_catalog.unnest($3::text[]) AS ours WHERE pg_catalog.to_regprocedure(ours) = p.oid)
ORDER BY 1
