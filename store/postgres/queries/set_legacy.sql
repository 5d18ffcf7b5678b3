UPDATE {{schema}}.lockwood_store SET legacy = $1::text
