import { settleMs } from './settle.js';

/** @typedef {import('./client.js').LockwoodClient} LockwoodClient */

/**
 * An `AuthProvider` for the transports of `@modelcontextprotocol/client` 2, for one MCP server. The transport asks it for a token
 * before each request, and where the server answers 401 for another one, once.
 *
 * Its methods reject with the errors of {@link LockwoodClient}, which the transport passes on.
 */
export class LockwoodAuthProvider {
  #client;
  #mcpServerId;
  /** The token that was given out last. @type {string | undefined} */
  #given;
  /** The replacement that is under way. @type {Promise<void> | undefined} */
  #replacing;
  /** When the last replacement was there, by performance.now(). */
  #replaced = -Infinity;

  /**
   * @param {LockwoodClient} client
   * @param {string} mcpServerId
   */
  constructor(client, mcpServerId) {
    this.#client = client;
    this.#mcpServerId = mcpServerId;
  }

  /**
   * Returns an access token for the next request.
   * @returns {Promise<string>}
   */
  async token() {
    const { accessToken } = await this.#client.accessToken(this.#mcpServerId);
    this.#given = accessToken;
    return accessToken;
  }

  /**
   * Tells Lockwood that the server answered the last token with 401, so that the next one is another. Requests that fail
   * together replace it once; those that do within 10 s of a replacement were sent before it, and replace nothing.
   * @returns {Promise<void>}
   */
  async onUnauthorized() {
    if (performance.now() - this.#replaced < settleMs) return;
    this.#replacing ??= this.#replace().finally(() => {
      this.#replacing = undefined;
    });
    return this.#replacing;
  }

  async #replace() {
    const { accessToken } = await this.#client.accessToken(this.#mcpServerId, { rejectedToken: this.#given });
    this.#given = accessToken;
    this.#replaced = performance.now();
  }
}
