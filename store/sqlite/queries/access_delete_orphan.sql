-- A lease that has run out may still be renewed. An hour after its end, ?5, nobody does.
DELETE FROM lockwood_access_tokens AS a
WHERE a.user_id = ?1 AND a.mcp_server_id = ?2 AND a.credential_id = ?3 AND a.generation = ?4
    AND (a.holder IS NULL OR a.lease_until < {{now}} - ?5)
    AND NOT EXISTS (
        SELECT 1 FROM ai_mcp_oauth_credentials AS c WHERE c.user_id = a.user_id AND c.mcp_server_id = a.mcp_server_id
    )
