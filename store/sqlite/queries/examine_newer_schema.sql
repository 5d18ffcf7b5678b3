SELECT 'lockwood_migrations', max(version)
FROM lockwood_migrations
HAVING max(version) > ?1
