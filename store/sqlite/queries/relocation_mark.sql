SELECT copy_id, role, phase, peer, changed_at FROM lockwood_relocation
