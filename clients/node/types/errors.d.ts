/**
 * What Lockwood, or the way to it, says instead of success. docs/connectors.md says what to
 * do about each.
 *
 * - `needs_reauth`: the user has to connect the MCP server again
 * - `unauthorized`: the user token is not valid
 * - `invalid_request`: a field breaks a rule, which the message names
 * - `no_route`: access tokens are off, or the URL is that of another service
 * - `too_many_requests`: of this user, or of rejected tokens
 * - `unreachable`: Lockwood did not answer in time, or not at all
 * - `unexpected`: an answer that is not in Lockwood's contract
 * - the others are Lockwood's own codes
 *
 * @typedef {'needs_reauth' | 'unauthorized' | 'invalid_request' | 'no_route' | 'too_many_requests' | 'unreachable' | 'unexpected'
 *   | 'token_endpoint_refused' | 'token_endpoint_failed' | 'token_endpoint_unavailable' | 'credential_quota_exceeded' | 'server_busy'
 *   | 'executor_encryption_key_missing' | 'executor_encryption_key_mismatch' | 'key_provider_denied' | 'key_provider_unavailable'
 *   | 'database_unavailable' | 'database_hides_rows'} State
 */
export type State = 'needs_reauth' | 'unauthorized' | 'invalid_request' | 'no_route' | 'too_many_requests' | 'unreachable' | 'unexpected' | 'token_endpoint_refused' | 'token_endpoint_failed' | 'token_endpoint_unavailable' | 'credential_quota_exceeded' | 'server_busy' | 'executor_encryption_key_missing' | 'executor_encryption_key_mismatch' | 'key_provider_denied' | 'key_provider_unavailable' | 'database_unavailable' | 'database_hides_rows';
/**
 * Lockwood's own codes, by what they mean.
 * @type {Readonly<Record<string, string>>}
 */
export declare const codes: Readonly<Record<string, string>>;
/** A call that did not succeed. No field of it holds a token. */
export declare class LockwoodError extends Error {
    /** What it is. @readonly */
    state: State;
    /** The HTTP status, if there was an answer. @readonly */
    status: number | undefined;
    /** After how many milliseconds to try again, if Lockwood says. @readonly */
    retryAfterMs: number | undefined;
    /** Finds the request in Lockwood's log. @readonly */
    requestId: string | undefined;
    /** Whether the same request may succeed later without anybody doing anything. @readonly */
    temporary: boolean;
    /**
     * @param {State} state
     * @param {string} message
     * @param {{status?: number, retryAfterMs?: number, requestId?: string, cause?: unknown}} [details]
     */
    constructor(state: State, message: string, { status, retryAfterMs, requestId, cause }?: {
        status?: number;
        retryAfterMs?: number;
        requestId?: string;
        cause?: unknown;
    });
}
/**
 * The user has to connect the MCP server again: there is no credential, it does not open, or
 * its grant is dead. It has the field by which the workflow executor knows this state.
 */
export declare class NeedsReauthError extends LockwoodError {
    /** @readonly */
    mcpServerId: string;
    /** @type {'needs-oauth-reauth'} @readonly */
    awaitingInputReason: 'needs-oauth-reauth';
    /**
     * @param {string} mcpServerId
     * @param {{status?: number, requestId?: string}} [details]
     */
    constructor(mcpServerId: string, details?: {
        status?: number;
        requestId?: string;
    });
}
/**
 * Reads an answer that is no success.
 * @param {Response} response
 * @param {string} text its body
 * @param {string} mcpServerId
 * @returns {LockwoodError}
 */
export declare function errorOf(response: Response, text: string, mcpServerId: string): LockwoodError;
