-- $1 is the live window in seconds. See Store.Instances for the placeholder.
SELECT id, hostname, kek_ids, state, config_hash, version, {{writes_legacy}}, started_at, last_seen,
    last_seen > now() - make_interval(secs => $1::double precision) AS live
FROM {{schema}}.lockwood_instances
ORDER BY live DESC, started_at, id
