INSERT INTO lockwood_relocation (id, copy_id, role, phase, peer, changed_at)
VALUES (1, ?1, ?2, ?3, ?4, strftime({{time_format}}, 'now'))
ON CONFLICT (id) DO UPDATE SET
    copy_id = excluded.copy_id, role = excluded.role, phase = excluded.phase, peer = excluded.peer, changed_at = excluded.changed_at
