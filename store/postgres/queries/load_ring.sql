-- One statement, so that the ring is seen as it was at one moment. The keys that
-- were named compromised come with every line; see Store.LoadRing.
SELECT s.store_id, s.legacy = 'closed', {{compromised}}, k.key_id, k.version, k.state, k.is_primary, k.seals_reserved,
    k.created_at, k.destroyed_at, w.kek_id, w.wrapped
FROM {{schema}}.lockwood_store AS s
LEFT JOIN {{schema}}.lockwood_data_keys AS k ON true
LEFT JOIN {{schema}}.lockwood_data_key_wraps AS w ON w.key_id = k.key_id
ORDER BY k.version, w.created_at, w.kek_id
