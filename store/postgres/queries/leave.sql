DELETE FROM {{schema}}.lockwood_instances WHERE id = $1::text
