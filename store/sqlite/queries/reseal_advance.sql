UPDATE lockwood_reseal SET
    done = done + ?2,
    skipped = skipped + ?3,
    failed = failed + ?4,
    updated_at = strftime({{time_format}}, 'now')
WHERE run_id = ?1 AND NOT ended
