INSERT INTO {{schema}}.lockwood_relocation AS r (id, copy_id, role, phase, peer, changed_at)
VALUES (1, $1::text, $2::text, $3::text, $4::text, now())
ON CONFLICT (id) DO UPDATE SET
    copy_id = excluded.copy_id, role = excluded.role, phase = excluded.phase, peer = excluded.peer, changed_at = excluded.changed_at
