(
        SELECT json_group_array(kek_key ORDER BY kek_key) FROM (
            SELECT kek_key FROM lockwood_compromised WHERE octet_length(kek_key) <= 1024
            ORDER BY kek_key LIMIT {{max_compromised}} + 1
        )
    )
