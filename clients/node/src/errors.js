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

/**
 * Lockwood's own codes, by what they mean.
 * @type {Readonly<Record<string, string>>}
 */
export const codes = Object.freeze({
  token_endpoint_refused: 'the token endpoint refused the request, or is not admitted',
  token_endpoint_failed: "the token endpoint's answer was of no use",
  token_endpoint_unavailable: 'the token endpoint does not answer',
  credential_quota_exceeded: 'the user has as many credentials as the quota allows',
  server_busy: 'too much is under way in Lockwood',
  executor_encryption_key_missing: 'no encryption key is configured in Lockwood',
  executor_encryption_key_mismatch: 'the encryption key in Lockwood is that of another store',
  key_provider_denied: 'the key provider refuses the use of the key',
  key_provider_unavailable: 'the key provider does not answer',
  database_unavailable: 'the database of Lockwood does not answer',
  database_hides_rows: 'the database of Lockwood may hide the credential',
});

/** States that the same request may be out of later, without anybody doing anything. */
const passing = new Set([
  'token_endpoint_failed', 'token_endpoint_unavailable', 'server_busy', 'key_provider_unavailable', 'database_unavailable',
  'too_many_requests', 'unreachable',
]);

/** A call that did not succeed. No field of it holds a token. */
export class LockwoodError extends Error {
  /**
   * @param {State} state
   * @param {string} message
   * @param {{status?: number, retryAfterMs?: number, requestId?: string, cause?: unknown}} [details]
   */
  constructor(state, message, { status, retryAfterMs, requestId, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'LockwoodError';
    /** What it is. @readonly */
    this.state = state;
    /** The HTTP status, if there was an answer. @readonly */
    this.status = status;
    /** After how many milliseconds to try again, if Lockwood says. @readonly */
    this.retryAfterMs = retryAfterMs;
    /** Finds the request in Lockwood's log. @readonly */
    this.requestId = requestId;
    /** Whether the same request may succeed later without anybody doing anything. @readonly */
    this.temporary = passing.has(state) || (state === 'unexpected' && status !== undefined && status >= 502);
  }
}

/**
 * The user has to connect the MCP server again: there is no credential, it does not open, or
 * its grant is dead. It has the field by which the workflow executor knows this state.
 */
export class NeedsReauthError extends LockwoodError {
  /**
   * @param {string} mcpServerId
   * @param {{status?: number, requestId?: string}} [details]
   */
  constructor(mcpServerId, details) {
    super('needs_reauth', 'the user has to connect the MCP server again', details);
    this.name = 'NeedsReauthError';
    /** @readonly */
    this.mcpServerId = mcpServerId;
    /** @type {'needs-oauth-reauth'} @readonly */
    this.awaitingInputReason = 'needs-oauth-reauth';
  }
}

/**
 * Reads an answer that is no success.
 * @param {Response} response
 * @param {string} text its body
 * @param {string} mcpServerId
 * @returns {LockwoodError}
 */
export function errorOf(response, text, mcpServerId) {
  const { status } = response;
  const requestId = response.headers.get('x-request-id') ?? undefined;
  const details = { status, requestId, retryAfterMs: retryAfter(response.headers.get('retry-after')) };
  const body = parse(text);
  /** @param {State} state @param {string} message */
  const of = (state, message) => new LockwoodError(state, `${message} (status ${status}, request ID ${requestId ?? 'unknown'})`, details);
  if (typeof body.code === 'string' && Object.hasOwn(codes, body.code)) {
    return of(/** @type {State} */ (body.code), codes[body.code]);
  }
  if (status === 409 && body.awaitingInputReason === 'needs-oauth-reauth') return new NeedsReauthError(mcpServerId, { status, requestId });
  if (status === 401) return of('unauthorized', 'the user token is not valid');
  if (status === 429) return of('too_many_requests', 'too many requests');
  if (status === 404) return of('no_route', 'there is no such route: access tokens are off, or this is not the URL of Lockwood');
  // Lockwood's text names fields and never a value.
  if ((status === 400 || status === 413) && typeof body.error === 'string') return of('invalid_request', body.error);
  return of('unexpected', "an answer that is not in Lockwood's contract");
}

/**
 * A proxy answers something else than JSON, which is not repeated.
 * @param {string} text
 * @returns {Record<string, unknown>}
 */
function parse(text) {
  try {
    const body = JSON.parse(text);
    return typeof body === 'object' && body !== null ? body : {};
  } catch {
    return {};
  }
}

/**
 * Reads a Retry-After of seconds or, as a proxy may send it, of a date (RFC 9110, section 10.2.3).
 * @param {string | null} value
 * @returns {number | undefined} milliseconds
 */
function retryAfter(value) {
  if (value === null) return undefined;
  const after = /^\d{1,9}$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(after) ? undefined : Math.max(0, after);
}
