UPDATE {{schema}}.lockwood_reseal SET
    total = total + $2::bigint,
    planned = planned OR $3::boolean,
    updated_at = now()
WHERE run_id = $1::text AND NOT ended
