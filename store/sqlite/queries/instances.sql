-- ?1 is the live window as a modifier of SQLite's time functions. See
-- Store.Instances for the placeholder.
SELECT id, hostname, kek_ids, state, config_hash, version, {{writes_legacy}}, started_at, last_seen,
    last_seen > strftime({{time_format}}, 'now', ?1) AS live
FROM lockwood_instances
ORDER BY live DESC, started_at, id
