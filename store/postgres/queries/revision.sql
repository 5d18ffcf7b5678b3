SELECT store_id, revision FROM {{schema}}.lockwood_store
