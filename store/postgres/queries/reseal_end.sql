UPDATE {{schema}}.lockwood_reseal SET ended = true, updated_at = now()
WHERE run_id = $1::text AND NOT ended
