SELECT name, 'off' FROM pg_catalog.unnest(ARRAY['fsync', 'full_page_writes', 'synchronous_commit']) AS name
WHERE pg_catalog.current_setting(name) = 'off'
