DROP TABLE lockwood_migrations;
