UPDATE lockwood_reseal SET ended = 1, updated_at = strftime({{time_format}}, 'now')
WHERE run_id = ?1 AND NOT ended
