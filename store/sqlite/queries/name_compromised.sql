INSERT INTO lockwood_compromised (kek_key, named_at)
SELECT value, strftime({{time_format}}, 'now') FROM json_each(?1) WHERE true
ON CONFLICT (kek_key) DO NOTHING
