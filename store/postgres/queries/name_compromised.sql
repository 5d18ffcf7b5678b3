INSERT INTO {{schema}}.lockwood_compromised (kek_key, named_at)
SELECT kek_key, now() FROM unnest($1::text[]) AS kek_key
ON CONFLICT (kek_key) DO NOTHING
