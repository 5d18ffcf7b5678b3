import { LockwoodClient } from './client.js';
import { LockwoodError } from './errors.js';
import { settleMs } from './settle.js';
import { signUserToken } from './user-token.js';

/**
 * The executor's own errors, by which the rest of it knows what happened: its module `errors` has them by these names.
 * @typedef {object} ExecutorErrors
 * @property {new (mcpServerId: string) => Error} OAuthReauthRequiredError
 * @property {new (message: string, cause?: unknown) => Error} OAuthRefreshError
 * @property {new () => Error} ExecutorEncryptionKeyMissingError
 */

/**
 * @typedef {object} ExecutorOptions
 * @property {string} url Lockwood's
 * @property {string} authSecret the value of FOREST_AUTH_SECRET, the same here and in Lockwood
 * @property {ExecutorErrors} [errors] without them the calls reject with a {@link LockwoodError}
 * @property {number} [timeoutMs] as for LockwoodClient
 * @property {number} [maxWaitMs] as for LockwoodClient
 * @property {typeof globalThis.fetch} [fetch] as for LockwoodClient
 */

/** How many tokens are remembered, so that one that was rejected can be named. */
const maxGiven = 10_000;

/**
 * Takes the place of the OAuthTokenService of ForestAdmin's workflow executor: the same methods, and the executor's own errors.
 * The tokens come from Lockwood, which keeps the credentials.
 */
export class ExecutorTokenService {
  #options;
  #authSecret;
  #errors;
  /** The token that was given out last, by user and server. @type {Map<string, string>} */
  #given = new Map();
  /** The forced refreshes that are under way. @type {Map<string, Promise<string>>} */
  #forced = new Map();
  /** When the last forced refresh was over, by performance.now(), for those of the last 10 s. @type {Map<string, number>} */
  #replaced = new Map();

  /** @param {ExecutorOptions} options */
  constructor({ authSecret, errors, ...options }) {
    signUserToken(authSecret, 1); // fails now rather than at the first step
    this.#authSecret = authSecret;
    this.#errors = errors;
    this.#options = options;
    this.#clientOf(1);
  }

  /**
   * Returns an access token. With forceRefresh the one that was given out last is reported as rejected, and the token is
   * another; callers at the same time share it. Within 10 s of that, forceRefresh rejects nothing: it comes of a request that was sent
   * before, and the token is the new one.
   * @param {number} userId
   * @param {string} mcpServerId
   * @param {{forceRefresh?: boolean}} [options]
   * @returns {Promise<string>}
   */
  async getAccessToken(userId, mcpServerId, { forceRefresh = false } = {}) {
    try {
      return await (forceRefresh ? this.#force(userId, mcpServerId) : this.#ask(userId, mcpServerId));
    } catch (error) {
      throw this.#translate(error, mcpServerId);
    }
  }

  /**
   * Forgets the token that was given out last. Lockwood has its own store, which a disconnect or a deposit there empties at once.
   * @param {number} userId
   * @param {string} mcpServerId
   * @returns {void}
   */
  evict(userId, mcpServerId) {
    this.#given.delete(keyOf(userId, mcpServerId));
    this.#replaced.delete(keyOf(userId, mcpServerId));
  }

  /**
   * @param {number} userId
   * @param {string} mcpServerId
   * @param {string} [rejectedToken]
   */
  async #ask(userId, mcpServerId, rejectedToken) {
    const { accessToken } = await this.#clientOf(userId).accessToken(mcpServerId, { rejectedToken });
    const key = keyOf(userId, mcpServerId);
    this.#given.delete(key); // so that the oldest stands first
    this.#given.set(key, accessToken);
    if (this.#given.size > maxGiven) this.#given.delete(this.#given.keys().next().value ?? '');
    return accessToken;
  }

  /**
   * @param {number} userId
   * @param {string} mcpServerId
   */
  #force(userId, mcpServerId) {
    const key = keyOf(userId, mcpServerId);
    let forced = this.#forced.get(key);
    if (!forced) {
      forced = this.#replace(userId, mcpServerId).finally(() => this.#forced.delete(key));
      this.#forced.set(key, forced);
    }
    return forced;
  }

  /**
   * @param {number} userId
   * @param {string} mcpServerId
   */
  async #replace(userId, mcpServerId) {
    const key = keyOf(userId, mcpServerId);
    this.#forgetReplaced();
    if (this.#replaced.has(key)) return this.#ask(userId, mcpServerId);
    const rejected = this.#given.get(key) ?? (await this.#ask(userId, mcpServerId));
    const accessToken = await this.#ask(userId, mcpServerId, rejected);
    this.#replaced.delete(key); // so that the oldest stands first
    this.#replaced.set(key, performance.now());
    return accessToken;
  }

  #forgetReplaced() {
    for (const [key, at] of this.#replaced) {
      if (performance.now() - at < settleMs) return;
      this.#replaced.delete(key);
    }
  }

  /** @param {number} userId */
  #clientOf(userId) {
    return new LockwoodClient({ ...this.#options, userToken: () => signUserToken(this.#authSecret, userId) });
  }

  /**
   * @param {unknown} error
   * @param {string} mcpServerId
   */
  #translate(error, mcpServerId) {
    if (!this.#errors || !(error instanceof LockwoodError)) return error;
    switch (error.state) {
      case 'needs_reauth':
        return new this.#errors.OAuthReauthRequiredError(mcpServerId);
      case 'executor_encryption_key_missing':
        return new this.#errors.ExecutorEncryptionKeyMissingError();
      default:
        return new this.#errors.OAuthRefreshError(error.message, error);
    }
  }
}

/**
 * @param {number} userId
 * @param {string} mcpServerId
 */
function keyOf(userId, mcpServerId) {
  return `${userId}:${mcpServerId}`;
}
