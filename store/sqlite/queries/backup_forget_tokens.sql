-- What is known of a grant stays: whether the user has to connect again, and when it was
-- refreshed last. Tokens are fetched anew.
UPDATE lockwood_access_tokens SET
    access_token_enc = NULL, expires_at = NULL, scope = NULL, rejected = 0, holder = NULL, lease_until = NULL, forced = 0, forced_until = NULL
