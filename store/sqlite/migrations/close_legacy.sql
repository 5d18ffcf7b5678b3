-- Every record starts with the magic of format 1, 'LKW1'. Whoever can write to
-- the table but holds no key cannot then pass off a legacy record, which is
-- bound to no row. Triggers, since SQLite can neither add a CHECK to a table nor
-- take one away without writing the whole table anew.
CREATE TRIGGER lockwood_format_1_insert
BEFORE INSERT ON ai_mcp_oauth_credentials
WHEN substr(NEW.refresh_token_enc, 1, 4) IS NOT x'4c4b5731'
    OR NEW.client_secret_enc IS NOT NULL AND substr(NEW.client_secret_enc, 1, 4) IS NOT x'4c4b5731'
BEGIN
    SELECT RAISE(ABORT, 'lockwood: the store is closed to legacy records');
END;

CREATE TRIGGER lockwood_format_1_update
BEFORE UPDATE OF refresh_token_enc, client_secret_enc ON ai_mcp_oauth_credentials
WHEN substr(NEW.refresh_token_enc, 1, 4) IS NOT x'4c4b5731'
    OR NEW.client_secret_enc IS NOT NULL AND substr(NEW.client_secret_enc, 1, 4) IS NOT x'4c4b5731'
BEGIN
    SELECT RAISE(ABORT, 'lockwood: the store is closed to legacy records');
END;
