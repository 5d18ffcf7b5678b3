SELECT report FROM lockwood_store
