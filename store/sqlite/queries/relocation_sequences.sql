-- The table of sequences is SQLite's own, for tables with AUTOINCREMENT.
SELECT max(coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'ai_mcp_oauth_credentials'), 0),
        coalesce((SELECT max(id) FROM ai_mcp_oauth_credentials), 0)),
    max(coalesce((SELECT last_generation FROM lockwood_store), 0), coalesce((SELECT max(generation) FROM lockwood_access_tokens), 0))
