SELECT copy_id, role, phase, peer, changed_at FROM {{schema}}.lockwood_relocation
