UPDATE lockwood_reseal SET ended = 1, failed = ?2, total = done + skipped + ?2, updated_at = strftime({{time_format}}, 'now')
WHERE run_id = ?1 AND NOT ended
