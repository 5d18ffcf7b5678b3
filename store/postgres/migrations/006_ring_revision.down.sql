DROP TRIGGER lockwood_revise ON {{schema}}.lockwood_store;
DROP TRIGGER lockwood_revise ON {{schema}}.lockwood_compromised;
DROP TRIGGER lockwood_revise ON {{schema}}.lockwood_data_key_wraps;
DROP TRIGGER lockwood_revise ON {{schema}}.lockwood_data_keys;
DROP FUNCTION {{schema}}.lockwood_revise_6;
ALTER TABLE {{schema}}.lockwood_store DROP COLUMN revision;
