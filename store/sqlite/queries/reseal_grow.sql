UPDATE lockwood_reseal SET
    total = total + ?2,
    planned = planned OR ?3,
    updated_at = strftime({{time_format}}, 'now')
WHERE run_id = ?1 AND NOT ended
