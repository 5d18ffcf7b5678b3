ARRAY(SELECT kek_key FROM {{schema}}.lockwood_compromised ORDER BY kek_key COLLATE "C")
