-- The table stays: it holds credentials, and is upstream's as much as ours. What
-- goes is what upstream would not have made, so that upstream can write to it.
DROP TRIGGER IF EXISTS lockwood_format_1_insert;
DROP TRIGGER IF EXISTS lockwood_format_1_update;
