UPDATE {{schema}}.lockwood_store SET report = $1::text
