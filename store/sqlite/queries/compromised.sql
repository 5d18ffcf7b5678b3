(SELECT json_group_array(kek_key ORDER BY kek_key) FROM lockwood_compromised)
