UPDATE lockwood_store SET legacy = ?1
