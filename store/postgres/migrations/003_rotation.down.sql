-- What goes is what a rotation needs, not what a record needs: let a re-seal end
-- first. That a KEK was named compromised is forgotten.
ALTER TABLE {{schema}}.lockwood_instances DROP COLUMN writes_legacy;
ALTER TABLE {{schema}}.lockwood_store DROP COLUMN report;
DROP TABLE {{schema}}.lockwood_compromised;
DROP TABLE {{schema}}.lockwood_reseal;
