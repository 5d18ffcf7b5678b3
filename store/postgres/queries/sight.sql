-- Each relation that stands under one of our names, with what decides whether a
-- statement sees, and reaches, all of its rows. See sight.go.
--
-- open: the policies let every row through, whatever becomes of the rights of the
-- role meanwhile. Policies that restrict are none, and for reading, updating and
-- deleting each there is one that says "true" for everyone or for this very role.
-- owned: the role itself, and not one that it is a member of, owns the table, and
-- the table does not subject its owner to policies.
SELECT c.relname::text, c.relkind::text, pg_catalog.quote_ident(me.rolname),
    EXISTS (SELECT FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid) AS ruled,
    pg_catalog.row_security_active(c.oid) AS filtered,
    NOT c.relrowsecurity OR c.relowner = me.oid AND NOT c.relforcerowsecurity AS owned,
    NOT EXISTS (SELECT FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid AND NOT p.polpermissive AND p.polcmd <> 'a')
    AND NOT EXISTS (
        SELECT FROM pg_catalog.unnest(ARRAY['r', 'w', 'd']) AS command
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_policy AS p
            WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd::text IN ('*', command)
                AND pg_catalog.pg_get_expr(p.polqual, p.polrelid) = 'true' AND p.polroles && ARRAY[0::oid, me.oid]
        )
    ) AS open
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles AS me ON me.rolname = current_user
WHERE n.nspname = $1::text AND c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname
