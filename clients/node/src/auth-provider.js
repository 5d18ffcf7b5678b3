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
   * together replace it once.
   * @returns {Promise<void>}
   */
  async onUnauthorized() {
    this.#replacing ??= this.#replace().finally(() => {
      this.#replacing = undefined;
    });
    return this.#replacing;
  }

  async #replace() {
    const { accessToken } = await this.#client.accessToken(this.#mcpServerId, { rejectedToken: this.#given });
    this.#given = accessToken;
  }
}
