SELECT count(*) FROM {{schema}}.lockwood_access_tokens
WHERE holder IS NOT NULL AND lease_until > clock_timestamp() - make_interval(secs => $1::float8)
