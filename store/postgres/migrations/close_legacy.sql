-- Every record starts with the magic of format 1, 'LKW1'. Whoever can write to
-- the table but holds no key cannot then pass off a legacy record, which is
-- bound to no row. The magic is a constant, since PostgreSQL evaluates what a
-- constraint calls anew for every statement that writes.
ALTER TABLE {{schema}}.ai_mcp_oauth_credentials
    ADD CONSTRAINT lockwood_refresh_token_enc_format_1
        CHECK (substr(refresh_token_enc, 1, 4) = E'\\x4c4b5731'::bytea),
    ADD CONSTRAINT lockwood_client_secret_enc_format_1
        CHECK (substr(client_secret_enc, 1, 4) = E'\\x4c4b5731'::bytea);
