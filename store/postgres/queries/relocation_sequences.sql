SELECT greatest(
        pg_sequence_last_value(pg_get_serial_sequence('{{schema}}.ai_mcp_oauth_credentials', 'id')::regclass),
        (SELECT max(id) FROM {{schema}}.ai_mcp_oauth_credentials), 0)::bigint,
    greatest(
        pg_sequence_last_value(pg_get_serial_sequence('{{schema}}.lockwood_access_tokens', 'generation')::regclass),
        (SELECT max(generation) FROM {{schema}}.lockwood_access_tokens), 0)::bigint
