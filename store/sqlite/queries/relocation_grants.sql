SELECT a.user_id, a.mcp_server_id, a.credential_id, a.generation, a.result_generation, a.refreshed_at, a.writer_generation,
    a.written_mark_enc, a.verdict, a.judged_mark_enc, a.failures, a.next_attempt_at
FROM lockwood_access_tokens AS a
JOIN ai_mcp_oauth_credentials AS c ON c.user_id = a.user_id AND c.mcp_server_id = a.mcp_server_id AND c.id = a.credential_id
WHERE a.user_id > ?1 OR a.user_id = ?1 AND a.mcp_server_id > ?2
ORDER BY a.user_id, a.mcp_server_id
LIMIT ?3
