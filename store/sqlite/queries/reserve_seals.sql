-- The limit, ?3, is compared by subtraction, which cannot overflow.
UPDATE lockwood_data_keys SET seals_reserved = seals_reserved + ?2
WHERE key_id = ?1 AND state = 'enabled' AND seals_reserved <= ?3 - ?2
