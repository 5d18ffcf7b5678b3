-- Those of the data keys that may be destroyed, in one order for all who do so.
SELECT key_id FROM {{schema}}.lockwood_data_keys
WHERE key_id = ANY ($1::bytea[]) AND state = 'enabled' AND NOT is_primary
ORDER BY version
FOR UPDATE
