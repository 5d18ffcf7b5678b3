-- One statement, so that the ring is seen as it was at one moment. The keys that
-- were named compromised come with the first line; see Store.LoadRing. It is bounded,
-- since whoever writes to the database may have planted any number of rows: one line
-- more than there may be, and no wraps where all of them are too long, and one key more
-- than may be compromised.
SELECT s.store_id, {{revision}}, s.legacy = 'closed',
    CASE WHEN row_number() OVER (ORDER BY k.version, w.created_at, w.kek_id) = 1 THEN {{compromised}} END,
    k.key_id, k.version, k.state, k.is_primary, k.seals_reserved,
    k.created_at, k.destroyed_at, w.kek_id, w.wrapped, size.bytes
FROM {{schema}}.lockwood_store AS s
CROSS JOIN (SELECT coalesce(sum(octet_length(wrapped)), 0) AS bytes FROM {{schema}}.lockwood_data_key_wraps) AS size
LEFT JOIN {{schema}}.lockwood_data_keys AS k ON true
LEFT JOIN {{schema}}.lockwood_data_key_wraps AS w ON w.key_id = k.key_id AND size.bytes <= {{max_bytes}}
ORDER BY k.version, w.created_at, w.kek_id
LIMIT {{max_lines}} + 1
