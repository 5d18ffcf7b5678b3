-- What is lost costs each credential one refresh.
DROP TRIGGER lockwood_clear_access_tokens;
DROP TABLE lockwood_access_tokens;
ALTER TABLE lockwood_store DROP COLUMN last_generation;
