ARRAY(
        SELECT kek_key FROM {{schema}}.lockwood_compromised WHERE octet_length(kek_key) <= 1024
        ORDER BY kek_key COLLATE "C" LIMIT {{max_compromised}} + 1
    )
