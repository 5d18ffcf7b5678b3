UPDATE lockwood_store SET last_generation = max(last_generation, ?1)
