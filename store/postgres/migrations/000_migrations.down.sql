DROP TABLE {{schema}}.lockwood_migrations;
