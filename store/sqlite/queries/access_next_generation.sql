UPDATE lockwood_store SET last_generation = last_generation + 1 RETURNING last_generation
