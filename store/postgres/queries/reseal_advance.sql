UPDATE {{schema}}.lockwood_reseal SET
    done = done + $2::bigint,
    skipped = skipped + $3::bigint,
    failed = failed + $4::bigint,
    updated_at = now()
WHERE run_id = $1::text AND NOT ended
