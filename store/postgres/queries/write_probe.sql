-- Asks for the rights, and for a server that writes, and touches no row.
UPDATE {{schema}}.ai_mcp_oauth_credentials SET scopes = scopes WHERE false
