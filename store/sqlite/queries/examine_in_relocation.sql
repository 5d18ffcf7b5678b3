-- What a copy has the store refuse, and where the other database is.
SELECT 'lockwood_store', CASE role || ' ' || phase
    WHEN 'source moved' THEN 'has moved to '
    WHEN 'target copying' THEN 'is an unfinished copy of '
    ELSE 'is being copied to ' END || peer
FROM lockwood_relocation
WHERE phase <> 'done'
