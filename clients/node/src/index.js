/**
 * Access tokens for MCP servers from Lockwood, for Node.js programs. It has no dependencies.
 *
 * - {@link LockwoodClient} asks for access tokens, and deposits, lists and disconnects
 * - {@link LockwoodAuthProvider} is for the transports of `@modelcontextprotocol/client`
 * - {@link ExecutorTokenService} takes the place of the workflow executor's OAuthTokenService
 *
 * @module
 */
export { LockwoodAuthProvider } from './auth-provider.js';
export { LockwoodClient } from './client.js';
export { LockwoodError, NeedsReauthError } from './errors.js';
export { ExecutorTokenService } from './executor.js';
export { signUserToken } from './user-token.js';

/**
 * @typedef {import('./client.js').AccessToken} AccessToken
 * @typedef {import('./client.js').CallOptions} CallOptions
 * @typedef {import('./client.js').Credential} Credential
 * @typedef {import('./client.js').Demand} Demand
 * @typedef {import('./client.js').Deposit} Deposit
 * @typedef {import('./client.js').Options} Options
 * @typedef {import('./errors.js').State} State
 * @typedef {import('./executor.js').ExecutorErrors} ExecutorErrors
 * @typedef {import('./executor.js').ExecutorOptions} ExecutorOptions
 */
