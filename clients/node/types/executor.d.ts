export type ExecutorErrors = {
    OAuthReauthRequiredError: new (mcpServerId: string) => Error;
    OAuthRefreshError: new (message: string, cause?: unknown) => Error;
    ExecutorEncryptionKeyMissingError: new () => Error;
};
export type ExecutorOptions = {
    /**
     * Lockwood's
     */
    url: string;
    /**
     * the value of FOREST_AUTH_SECRET, the same here and in Lockwood
     */
    authSecret: string;
    /**
     * without them the calls reject with a {@link LockwoodError}
     */
    errors?: ExecutorErrors;
    /**
     * as for LockwoodClient
     */
    timeoutMs?: number;
    /**
     * as for LockwoodClient
     */
    maxWaitMs?: number;
    /**
     * as for LockwoodClient
     */
    fetch?: typeof globalThis.fetch;
};
/**
 * Takes the place of the OAuthTokenService of ForestAdmin's workflow executor: the same methods, and the executor's own errors.
 * The tokens come from Lockwood, which keeps the credentials.
 */
export declare class ExecutorTokenService {
    #private;
    /** @param {ExecutorOptions} options */
    constructor({ authSecret, errors, ...options }: ExecutorOptions);
    /**
     * Returns an access token. With forceRefresh the one that was given out last is reported as rejected, and the token is
     * another; callers at the same time share it. Within 10 s of that, forceRefresh rejects nothing: it comes of a request that was sent
     * before, and the token is the new one.
     * @param {number} userId
     * @param {string} mcpServerId
     * @param {{forceRefresh?: boolean}} [options]
     * @returns {Promise<string>}
     */
    getAccessToken(userId: number, mcpServerId: string, { forceRefresh }?: {
        forceRefresh?: boolean;
    }): Promise<string>;
    /**
     * Forgets the token that was given out last. Lockwood has its own store, which a disconnect or a deposit there empties at once.
     * @param {number} userId
     * @param {string} mcpServerId
     * @returns {void}
     */
    evict(userId: number, mcpServerId: string): void;
}
