INSERT INTO lockwood_instances (id, hostname, kek_ids, state, config_hash, version, writes_legacy, started_at, last_seen)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, strftime({{time_format}}, 'now'), strftime({{time_format}}, 'now'))
ON CONFLICT (id) DO UPDATE SET
    hostname = excluded.hostname,
    kek_ids = excluded.kek_ids,
    state = excluded.state,
    config_hash = excluded.config_hash,
    version = excluded.version,
    writes_legacy = excluded.writes_legacy,
    last_seen = excluded.last_seen
