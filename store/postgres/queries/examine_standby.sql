SELECT pg_catalog.quote_ident(pg_catalog.current_database()), ''
WHERE pg_catalog.pg_is_in_recovery()
