SELECT store_id, revision FROM lockwood_store
