INSERT INTO lockwood_access_tokens (
    user_id, mcp_server_id, credential_id, generation, result_generation, refreshed_at, writer_generation,
    written_mark_enc, verdict, judged_mark_enc, failures, next_attempt_at
)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
ON CONFLICT (user_id, mcp_server_id) DO NOTHING
