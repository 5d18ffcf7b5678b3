-- What is lost costs each credential one refresh.
DROP TRIGGER lockwood_clear_access_tokens ON {{schema}}.lockwood_data_keys;
DROP FUNCTION {{schema}}.lockwood_clear_access_tokens_5;
DROP TABLE {{schema}}.lockwood_access_tokens;
