// What the tests have in common: the instance that go test started, named by the
// environment, and users of their own.
import { createServer } from 'node:http';

import { LockwoodClient, signUserToken } from '@lockwood-kms/client';

/** @param {string} name */
function variable(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run "go test ./clients/node", which starts what the tests need`);
  return value;
}

export const url = variable('LOCKWOOD_URL');
export const authSecret = variable('LOCKWOOD_AUTH_SECRET');
export const tokenEndpoint = variable('LOCKWOOD_TOKEN_ENDPOINT');

// Test files run at the same time, and so do runs on several versions of Node.js.
let users = process.pid * 100;

/** Returns the ID of a user that nobody else is. */
export const newUser = () => ++users;

/**
 * Returns a client of a user.
 * @param {number} [user]
 * @param {object} [options]
 */
export function newClient(user = newUser(), options = {}) {
  return new LockwoodClient({ url, userToken: () => signUserToken(authSecret, user), ...options });
}

/**
 * Connects a user to a server of which the token endpoint does what its path says.
 * @param {LockwoodClient} client
 * @param {string} does
 * @param {string} [mcpServerId]
 */
export function deposit(client, does, mcpServerId = does) {
  return client.deposit({ mcpServerId, refreshToken: 'FAKE-rt-0', tokenEndpoint: `${tokenEndpoint}/${does}/${newUser()}` });
}

/**
 * Serves requests until the test ends.
 * @param {import('node:test').TestContext} t
 * @param {import('node:http').RequestListener} listener
 * @returns {Promise<string>} its URL
 */
export async function listen(t, listener) {
  const server = createServer(listener);
  await new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (server.address()).port}`;
}
