-- The table stays: it holds credentials, and is upstream's as much as ours. What
-- goes is what upstream would not have made, so that upstream can write to it.
ALTER TABLE {{schema}}.ai_mcp_oauth_credentials
    DROP CONSTRAINT IF EXISTS lockwood_refresh_token_enc_format_1,
    DROP CONSTRAINT IF EXISTS lockwood_client_secret_enc_format_1;
