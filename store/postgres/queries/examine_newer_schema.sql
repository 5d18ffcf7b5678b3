-- The version of the schema, if it is above $1.
SELECT '{{schema}}', max(version)::text
FROM {{schema}}.lockwood_migrations
HAVING max(version) > $1::bigint
