SELECT pg_catalog.quote_ident(datname), pg_catalog.pg_encoding_to_char(encoding)
FROM pg_catalog.pg_database
WHERE datname = pg_catalog.current_database() AND pg_catalog.pg_encoding_to_char(encoding) <> 'UTF8'
