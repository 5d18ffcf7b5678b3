export type Options = {
    /**
     * Lockwood's, such as https://lockwood.example.com
     */
    url: string;
    /**
     * a token that names the user, a JSON Web Token signed with
     * FOREST_AUTH_SECRET; a function is called for each request
     */
    userToken: string | (() => string | Promise<string>);
    /**
     * bounds each request to Lockwood; 30,000 by default, since Lockwood answers within 25 s
     */
    timeoutMs?: number;
    /**
     * the longest that a call waits, once, because Lockwood answered 429 or 503 with a Retry-After;
     * 10,000 by default, 0 never waits
     */
    maxWaitMs?: number;
    /**
     * sends the requests; the global one by default
     */
    fetch?: typeof globalThis.fetch;
};
export type AccessToken = {
    accessToken: string;
    tokenType: 'Bearer';
    /**
     * seconds; null if the token endpoint does not say
     */
    expiresIn: number | null;
    /**
     * RFC 3339
     */
    expiresAt: string | null;
    scope: string | null;
};
export type Demand = {
    /**
     * a token that the MCP server answered with 401: it is not given out again, and if it is the
     * current one, another is fetched, at most twice in a minute
     */
    rejectedToken?: string;
    /**
     * how long the token has to be valid still, at most 300; one that is fetched for the
     * call satisfies it
     */
    minValiditySeconds?: number;
};
export type Deposit = {
    mcpServerId: string;
    refreshToken: string;
    /**
     * an https URL
     */
    tokenEndpoint: string;
    /**
     * required with a clientSecret
     */
    clientId?: string;
    clientSecret?: string;
    /**
     * a date, such as 2030-01-02T03:04:05.678Z
     */
    clientSecretExpiresAt?: string;
    tokenEndpointAuthMethod?: 'client_secret_basic' | 'client_secret_post' | 'none';
    /**
     * separated by spaces
     */
    scopes?: string;
};
export type Credential = {
    mcpServerId: string;
    clientId: string | null;
    hasClientSecret: boolean;
    clientSecretExpiresAt: string | null;
    tokenEndpoint: string;
    tokenEndpointAuthMethod: string | null;
    scopes: string | null;
    createdAt: string;
    updatedAt: string;
    state?: 'connected' | 'needs_reauth' | 'failing';
    lastRefreshedAt?: string | null;
    accessTokenExpiresAt?: string | null;
};
export type CallOptions = {
    signal?: AbortSignal;
};
/**
 * Asks Lockwood in the name of one user. Nothing is cached: Lockwood stores access tokens, and knows at once when a user
 * disconnects.
 *
 * Each method rejects with a {@link LockwoodError}, whose `state` says what it is; an aborted signal, with its reason.
 */
export declare class LockwoodClient {
    #private;
    /** @param {Options} options */
    constructor({ url, userToken, timeoutMs, maxWaitMs, fetch }: Options);
    /**
     * Returns an access token of the user's for the MCP server.
     * @param {string} mcpServerId
     * @param {Demand & CallOptions} [demand]
     * @returns {Promise<AccessToken>}
     */
    accessToken(mcpServerId: string, { rejectedToken, minValiditySeconds, signal }?: Demand & CallOptions): Promise<AccessToken>;
    /**
     * Stores the user's credential for an MCP server, in place of the one that was there. Lockwood presents and replaces the
     * refresh token from here on, so that nobody else may.
     * @param {Deposit} deposit
     * @param {CallOptions} [options]
     * @returns {Promise<void>}
     */
    deposit(deposit: Deposit, { signal }?: CallOptions): Promise<void>;
    /**
     * Lists the user's credentials, by server ID.
     * @param {CallOptions} [options]
     * @returns {Promise<Credential[]>}
     */
    list({ signal }?: CallOptions): Promise<Credential[]>;
    /**
     * Removes the user's credential for the MCP server, if there is one.
     * @param {string} mcpServerId
     * @param {CallOptions} [options]
     * @returns {Promise<void>}
     */
    disconnect(mcpServerId: string, { signal }?: CallOptions): Promise<void>;
}
