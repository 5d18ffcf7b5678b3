UPDATE lockwood_data_keys SET seals_reserved = max(seals_reserved, ?1) WHERE state = 'enabled'
