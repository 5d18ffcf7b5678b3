SELECT 'default_transaction_read_only', 'on'
WHERE pg_catalog.current_setting('transaction_read_only') = 'on' AND NOT pg_catalog.pg_is_in_recovery()
