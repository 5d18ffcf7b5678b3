SELECT run_id, target, max_rate, planned, ended, total, done, skipped, failed, started_at, updated_at
FROM {{schema}}.lockwood_reseal
