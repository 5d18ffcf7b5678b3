SELECT count(*) FROM lockwood_access_tokens WHERE holder IS NOT NULL AND lease_until > {{now}} - ?1
