UPDATE {{schema}}.lockwood_reseal SET ended = true, failed = $2::bigint, total = done + skipped + $2::bigint, updated_at = now()
WHERE run_id = $1::text AND NOT ended
