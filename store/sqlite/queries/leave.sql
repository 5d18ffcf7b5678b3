DELETE FROM lockwood_instances WHERE id = ?1
