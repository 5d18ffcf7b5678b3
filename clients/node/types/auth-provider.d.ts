export type LockwoodClient = import('./client.js').LockwoodClient;
/** @typedef {import('./client.js').LockwoodClient} LockwoodClient */
/**
 * An `AuthProvider` for the transports of `@modelcontextprotocol/client` 2, for one MCP server. The transport asks it for a token
 * before each request, and where the server answers 401 for another one, once.
 *
 * Its methods reject with the errors of {@link LockwoodClient}, which the transport passes on.
 */
export declare class LockwoodAuthProvider {
    #private;
    /**
     * @param {LockwoodClient} client
     * @param {string} mcpServerId
     */
    constructor(client: LockwoodClient, mcpServerId: string);
    /**
     * Returns an access token for the next request.
     * @returns {Promise<string>}
     */
    token(): Promise<string>;
    /**
     * Tells Lockwood that the server answered the last token with 401, so that the next one is another. Requests that fail
     * together replace it once; those that do within 10 s of a replacement were sent before it, and replace nothing.
     * @returns {Promise<void>}
     */
    onUnauthorized(): Promise<void>;
}
