UPDATE lockwood_store SET report = ?1
