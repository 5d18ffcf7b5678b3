-- There is no constraint to conflict with.
INSERT INTO sqlite_sequence (name, seq)
SELECT 'ai_mcp_oauth_credentials', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'ai_mcp_oauth_credentials')
