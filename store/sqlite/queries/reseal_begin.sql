INSERT OR REPLACE INTO lockwood_reseal (
    id, run_id, target, max_rate, planned, ended, total, done, skipped, failed, next_at, started_at, updated_at
)
VALUES (1, ?1, ?2, ?3, 0, 0, 0, 0, 0, 0, unixepoch('now', 'subsec'), strftime({{time_format}}, 'now'), strftime({{time_format}}, 'now'))
