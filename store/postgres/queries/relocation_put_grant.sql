INSERT INTO {{schema}}.lockwood_access_tokens (
    user_id, mcp_server_id, credential_id, generation, result_generation, refreshed_at, writer_generation,
    written_mark_enc, verdict, judged_mark_enc, failures, next_attempt_at
)
VALUES ($1::bigint, $2::text, $3::bigint, $4::bigint, $5::bigint, $6::timestamptz, $7::bigint, $8::bytea, $9::text, $10::bytea, $11::integer, $12::timestamptz)
ON CONFLICT (user_id, mcp_server_id) DO NOTHING
