SELECT report FROM {{schema}}.lockwood_store
