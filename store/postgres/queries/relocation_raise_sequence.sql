-- No row, and nothing is raised, unless the table's sequence is below $3.
SELECT setval(s.name::regclass, $3::bigint)
FROM (SELECT pg_get_serial_sequence('{{schema}}.' || $1::text, $2::text)) AS s (name)
WHERE $3::bigint > coalesce(pg_sequence_last_value(s.name::regclass), 0)
