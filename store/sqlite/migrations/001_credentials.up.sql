-- The credential table as upstream makes it, where upstream did not make it
-- already. AUTOINCREMENT is what keeps an id from being used again.
CREATE TABLE ai_mcp_oauth_credentials (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    mcp_server_id VARCHAR(255) NOT NULL,
    refresh_token_enc BLOB NOT NULL,
    client_id VARCHAR(255),
    client_secret_enc BLOB,
    client_secret_expires_at DATETIME,
    token_endpoint VARCHAR(2048) NOT NULL,
    token_endpoint_auth_method VARCHAR(64),
    scopes VARCHAR(2048),
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL
);

CREATE UNIQUE INDEX idx_user_id_mcp_server_id
    ON ai_mcp_oauth_credentials (user_id, mcp_server_id);
