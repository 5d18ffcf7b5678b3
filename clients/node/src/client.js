import { setTimeout as delay } from 'node:timers/promises';

import { LockwoodError, errorOf } from './errors.js';

/**
 * @typedef {object} Options
 * @property {string} url Lockwood's, such as https://lockwood.example.com
 * @property {string | (() => string | Promise<string>)} userToken a token that names the user, a JSON Web Token signed with
 *   FOREST_AUTH_SECRET; a function is called for each request
 * @property {number} [timeoutMs] bounds each request to Lockwood; 30,000 by default, since Lockwood answers within 25 s
 * @property {number} [maxWaitMs] the longest that a call waits, once, because Lockwood answered 429 or 503 with a Retry-After;
 *   10,000 by default, 0 never waits
 * @property {typeof globalThis.fetch} [fetch] sends the requests; the global one by default
 */

/**
 * @typedef {object} AccessToken
 * @property {string} accessToken
 * @property {'Bearer'} tokenType
 * @property {number | null} expiresIn seconds; null if the token endpoint does not say
 * @property {string | null} expiresAt RFC 3339
 * @property {string | null} scope
 */

/**
 * @typedef {object} Demand
 * @property {string} [rejectedToken] a token that the MCP server answered with 401: it is not given out again, and if it is the
 *   current one, another is fetched, at most twice in a minute
 * @property {number} [minValiditySeconds] how long the token has to be valid still, at most 300; one that is fetched for the
 *   call satisfies it
 */

/**
 * @typedef {object} Deposit
 * @property {string} mcpServerId
 * @property {string} refreshToken
 * @property {string} tokenEndpoint an https URL
 * @property {string} [clientId] required with a clientSecret
 * @property {string} [clientSecret]
 * @property {string} [clientSecretExpiresAt] a date, such as 2030-01-02T03:04:05.678Z
 * @property {'client_secret_basic' | 'client_secret_post' | 'none'} [tokenEndpointAuthMethod]
 * @property {string} [scopes] separated by spaces
 */

/**
 * What Lockwood says of a credential, which is nothing secret.
 * @typedef {object} Credential
 * @property {string} mcpServerId
 * @property {string | null} clientId
 * @property {boolean} hasClientSecret
 * @property {string | null} clientSecretExpiresAt
 * @property {string} tokenEndpoint
 * @property {string | null} tokenEndpointAuthMethod
 * @property {string | null} scopes
 * @property {string} createdAt
 * @property {string} updatedAt
 * @property {'connected' | 'needs_reauth' | 'failing'} [state]
 * @property {string | null} [lastRefreshedAt]
 * @property {string | null} [accessTokenExpiresAt]
 */

/** @typedef {{signal?: AbortSignal}} CallOptions ends the call when the signal is aborted */

const route = '/mcp-oauth-credentials';

/**
 * Asks Lockwood in the name of one user. Nothing is cached: Lockwood stores access tokens, and knows at once when a user
 * disconnects.
 *
 * Each method rejects with a {@link LockwoodError}, whose `state` says what it is; an aborted signal, with its reason.
 */
export class LockwoodClient {
  #url;
  #userToken;
  #timeoutMs;
  #maxWaitMs;
  #fetch;

  /** @param {Options} options */
  constructor({ url, userToken, timeoutMs = 30_000, maxWaitMs = 10_000, fetch = globalThis.fetch }) {
    this.#url = baseOf(url);
    if (typeof userToken !== 'function' && (typeof userToken !== 'string' || userToken === '')) {
      throw new TypeError('userToken has to be a token or a function that returns one');
    }
    this.#userToken = userToken;
    this.#timeoutMs = timeoutMs;
    this.#maxWaitMs = maxWaitMs;
    this.#fetch = fetch;
  }

  /**
   * Returns an access token of the user's for the MCP server.
   * @param {string} mcpServerId
   * @param {Demand & CallOptions} [demand]
   * @returns {Promise<AccessToken>}
   */
  async accessToken(mcpServerId, { rejectedToken, minValiditySeconds, signal } = {}) {
    const answer = await this.#call('POST', `${pathOf(mcpServerId)}/access-token`, { rejectedToken, minValiditySeconds }, signal, mcpServerId);
    if (typeof answer?.accessToken !== 'string' || answer.accessToken === '' || answer.tokenType !== 'Bearer') {
      throw new LockwoodError('unexpected', 'the answer has no access token: is this the URL of Lockwood?', { status: 200 });
    }
    return answer;
  }

  /**
   * Stores the user's credential for an MCP server, in place of the one that was there. Lockwood presents and replaces the
   * refresh token from here on, so that nobody else may.
   * @param {Deposit} deposit
   * @param {CallOptions} [options]
   * @returns {Promise<void>}
   */
  async deposit(deposit, { signal } = {}) {
    await this.#call('POST', route, deposit, signal);
  }

  /**
   * Lists the user's credentials, by server ID.
   * @param {CallOptions} [options]
   * @returns {Promise<Credential[]>}
   */
  async list({ signal } = {}) {
    const answer = await this.#call('GET', route, undefined, signal);
    if (!Array.isArray(answer?.credentials)) {
      throw new LockwoodError('unexpected', 'the answer has no credentials: is this the URL of Lockwood?', { status: 200 });
    }
    return answer.credentials;
  }

  /**
   * Removes the user's credential for the MCP server, if there is one.
   * @param {string} mcpServerId
   * @param {CallOptions} [options]
   * @returns {Promise<void>}
   */
  async disconnect(mcpServerId, { signal } = {}) {
    await this.#call('DELETE', pathOf(mcpServerId), undefined, signal);
  }

  /**
   * Sends a request, and once more when Lockwood says that it should.
   * @param {string} method
   * @param {string} path
   * @param {object | undefined} body
   * @param {AbortSignal | undefined} signal
   * @param {string} [mcpServerId]
   * @returns {Promise<any>}
   */
  async #call(method, path, body, signal, mcpServerId = '') {
    try {
      return await this.#once(method, path, body, signal, mcpServerId);
    } catch (error) {
      if (!(error instanceof LockwoodError) || !error.temporary || !error.retryAfterMs || error.retryAfterMs > this.#maxWaitMs) throw error;
      await delay(error.retryAfterMs, undefined, { signal }).catch(() => signal?.throwIfAborted());
      return this.#once(method, path, body, signal, mcpServerId);
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {object | undefined} body
   * @param {AbortSignal | undefined} signal
   * @param {string} mcpServerId
   * @returns {Promise<any>}
   */
  async #once(method, path, body, signal, mcpServerId) {
    const userToken = typeof this.#userToken === 'function' ? await this.#userToken() : this.#userToken;
    const timeout = AbortSignal.timeout(this.#timeoutMs);
    let response;
    let text;
    try {
      response = await this.#fetch(this.#url + path, {
        method,
        headers: { authorization: `Bearer ${userToken}`, ...(body && { 'content-type': 'application/json' }) },
        body: body && JSON.stringify(body),
        // Lockwood never redirects, and where else a token would be sent nobody knows.
        redirect: 'manual',
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      });
      text = await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      throw new LockwoodError('unreachable', timeout.aborted ? `Lockwood did not answer within ${this.#timeoutMs} ms` : 'Lockwood cannot be reached', {
        cause: codeOf(error),
      });
    }
    if (response.status === 204) return undefined;
    if (response.status !== 200) throw errorOf(response, text, mcpServerId);
    try {
      return JSON.parse(text);
    } catch {
      // The cause is left out: it quotes the answer, which may hold a token.
      throw new LockwoodError('unexpected', 'the answer is not JSON: is this the URL of Lockwood?', { status: 200 });
    }
  }
}

/**
 * Returns what a failed fetch is about, such as ECONNREFUSED; its text may quote the request.
 * @param {unknown} error
 * @returns {string | undefined}
 */
function codeOf(error) {
  const { code, cause } = /** @type {{code?: unknown, cause?: {code?: unknown}}} */ (error ?? {});
  const known = cause?.code ?? code;
  return typeof known === 'string' ? known : undefined;
}

/**
 * Returns Lockwood's URL without a slash at the end.
 * @param {string} url
 * @returns {string}
 */
function baseOf(url) {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (!parsed || !/^https?:$/.test(parsed.protocol) || parsed.username || parsed.password || parsed.search || parsed.hash) {
    // The URL is not repeated: it may hold a password.
    throw new TypeError('url has to be of the form https://host or https://host/path');
  }
  return parsed.href.replace(/\/$/, '');
}

/**
 * Returns the path of the credential for an MCP server.
 * @param {string} mcpServerId
 * @returns {string}
 */
function pathOf(mcpServerId) {
  if (typeof mcpServerId !== 'string' || mcpServerId === '') throw new TypeError('mcpServerId has to be a string of at least 1 character');
  // URL would take them, escaped or not, for the directory and the one above it.
  if (mcpServerId === '.' || mcpServerId === '..') throw new TypeError('an MCP server cannot be called "." or ".."');
  return `${route}/${encodeURIComponent(mcpServerId.toWellFormed())}`;
}
