import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';

import { LockwoodClient, LockwoodError, NeedsReauthError, signUserToken } from '@lockwood-kms/client';

import { codes } from '../src/errors.js';
import { authSecret, deposit, listen, newClient, newUser, tokenEndpoint, url } from './lockwood.js';

/**
 * Asserts that a call fails with a state and that the error holds no token, however it is shown.
 * @param {Promise<unknown>} call
 * @param {string} state
 */
async function failsWith(call, state) {
  let failed;
  await assert.rejects(call, error => {
    failed = error;
    return error instanceof LockwoodError && error.state === state && !inspect(error, { depth: 9, showHidden: true }).includes('FAKE');
  });
  return /** @type {any} */ (failed);
}

test('a credential is deposited, listed and removed', async () => {
  const client = newClient();
  const full = {
    mcpServerId: 'a/b %2F é', refreshToken: 'FAKE-rt', tokenEndpoint, clientId: 'id', clientSecret: 'FAKE-secret',
    clientSecretExpiresAt: '2030-01-02T03:04:05.678Z', scopes: 'read write',
    tokenEndpointAuthMethod: /** @type {const} */ ('client_secret_post'),
  };
  await client.deposit(full);
  await client.deposit({ mcpServerId: 'z', refreshToken: 'FAKE-rt', tokenEndpoint });
  const list = await client.list();
  assert.deepEqual(list.map(c => c.mcpServerId), [full.mcpServerId, 'z']);
  for (const field of /** @type {const} */ (['tokenEndpoint', 'clientId', 'clientSecretExpiresAt', 'scopes', 'tokenEndpointAuthMethod'])) {
    assert.equal(list[0][field], full[field]);
  }
  assert.equal(list[0].hasClientSecret, true);
  assert.ok(!JSON.stringify(list).includes('FAKE'));
  assert.equal(list[1].clientId, null);
  for (const id of [full.mcpServerId, full.mcpServerId, 'z']) assert.equal(await client.disconnect(id), undefined);
  assert.deepEqual(await client.list(), []);
});

test('access tokens', async () => {
  const client = newClient();
  await deposit(client, 'granted');
  const first = await client.accessToken('granted');
  assert.equal(first.accessToken, 'FAKE-at-1');
  assert.equal(first.tokenType, 'Bearer');
  assert.equal(first.scope, 'read');
  assert.ok(first.expiresIn !== null && first.expiresIn > 3500 && first.expiresAt !== null && Date.parse(first.expiresAt) > Date.now());
  assert.equal((await client.accessToken('granted', { minValiditySeconds: 300 })).accessToken, 'FAKE-at-1');
  assert.equal((await client.accessToken('granted', { rejectedToken: 'FAKE-at-1' })).accessToken, 'FAKE-at-2');
  const all = await Promise.all(Array.from({ length: 20 }, () => client.accessToken('granted')));
  assert.deepEqual(new Set(all.map(a => a.accessToken)), new Set(['FAKE-at-2']));
  await deposit(client, 'endless');
  const endless = await client.accessToken('endless');
  assert.equal(endless.expiresIn, null);
  assert.equal(endless.expiresAt, null);
});

test('each state is an error of its own', async () => {
  const client = newClient(newUser(), { maxWaitMs: 0 });
  for (const [does, state, temporary] of /** @type {const} */ ([
    ['dead', 'needs_reauth', false], ['refused', 'token_endpoint_refused', false],
    ['failed', 'token_endpoint_failed', true], ['unavailable', 'token_endpoint_unavailable', true],
  ])) {
    await deposit(client, does);
    const error = await failsWith(client.accessToken(does), state);
    assert.equal(error.temporary, temporary, does);
    assert.ok(error.requestId, does);
  }
  const error = await failsWith(client.accessToken('none'), 'needs_reauth');
  assert.ok(error instanceof NeedsReauthError);
  assert.equal(error.awaitingInputReason, 'needs-oauth-reauth');
  assert.equal(error.mcpServerId, 'none');
  const refused = await failsWith(client.deposit({ mcpServerId: 's', refreshToken: 'FAKE-rt', tokenEndpoint: 'http://169.254.169.254/' }), 'invalid_request');
  assert.match(refused.message, /tokenEndpoint/);
  await failsWith(new LockwoodClient({ url, userToken: 'FAKE.user.token' }).list(), 'unauthorized');
  await failsWith(new LockwoodClient({ url: `${url}/nowhere`, userToken: signUserToken(authSecret, 1) }).list(), 'no_route');
});

test('Retry-After is obeyed once, and not if it is long', async t => {
  const client = newClient();
  await deposit(client, 'recovering');
  assert.equal((await client.accessToken('recovering')).accessToken, 'FAKE-at-2');
  for (const rejectedToken of ['FAKE-at-2', 'FAKE-at-3']) await client.accessToken('recovering', { rejectedToken });
  const error = await failsWith(client.accessToken('recovering', { rejectedToken: 'FAKE-at-4' }), 'too_many_requests');
  assert.ok(error.retryAfterMs > 10_000);

  let asked = 0;
  const busy = await listen(t, (_, response) => {
    asked++;
    response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '1' }).end('{"code":"server_busy"}');
  });
  await failsWith(new LockwoodClient({ url: busy, userToken: 'FAKE' }).list(), 'server_busy');
  assert.equal(asked, 2);
  await failsWith(new LockwoodClient({ url: busy, userToken: 'FAKE', maxWaitMs: 999 }).list(), 'server_busy');
  assert.equal(asked, 3);
  const leaving = new AbortController();
  const call = new LockwoodClient({ url: busy, userToken: 'FAKE' }).list({ signal: leaving.signal });
  const reason = new Error('the caller left');
  leaving.abort(reason);
  await assert.rejects(call, reason);
});

test('what is not Lockwood', async t => {
  const answers = {
    '/page': [200, '<html>FAKE</html>'], '/empty': [200, '{}'], '/null': [200, 'null'], '/mac': [200, '{"accessToken":"FAKE","tokenType":"MAC"}'],
    '/proxy': [502, 'FAKE'], '/defect': [500, '{"error":"FAKE"}'], '/code': [503, '{"code":"FAKE"}'], '/toString': [503, '{"code":"toString"}'], '/moved': [307, 'FAKE'],
  };
  const other = await listen(t, (request, response) => {
    const path = /** @type {keyof typeof answers} */ (request.url?.split('/mcp-oauth-credentials')[0] ?? '');
    const [status, body] = /** @type {[number, string]} */ (answers[path]);
    response.writeHead(status, { location: 'http://127.0.0.1:1/FAKE' }).end(body);
  });
  for (const path of Object.keys(answers)) {
    const client = new LockwoodClient({ url: other + path, userToken: 'FAKE' });
    await failsWith(client.accessToken('s'), 'unexpected');
    await failsWith(client.list(), 'unexpected');
  }
  const silent = await listen(t, () => {});
  const hung = await failsWith(new LockwoodClient({ url: silent, userToken: 'FAKE', timeoutMs: 50 }).list(), 'unreachable');
  assert.match(hung.message, /50 ms/);
  const away = await failsWith(new LockwoodClient({ url: 'http://127.0.0.1:1', userToken: 'FAKE' }).list(), 'unreachable');
  assert.ok(away.temporary);
});

test('what a client refuses to begin with', async () => {
  for (const bad of ['', 'lockwood', 'ftp://x', 'https://u:FAKE@x', 'https://x?FAKE', 'https://x#FAKE']) {
    assert.throws(() => new LockwoodClient({ url: bad, userToken: 't' }), error => error instanceof TypeError && !error.message.includes('FAKE'), bad);
  }
  assert.throws(() => new LockwoodClient({ url, userToken: '' }), TypeError);
  const client = newClient();
  for (const bad of ['', '.', '..']) await assert.rejects(client.accessToken(bad), TypeError, bad);
  for (const bad of [0, -1, 1.5, 2 ** 31, NaN]) assert.throws(() => signUserToken('s', bad), TypeError);
  assert.throws(() => signUserToken('', 1), TypeError);
});

test('a client shows no token', () => {
  const client = new LockwoodClient({ url, userToken: 'FAKE' });
  assert.ok(!inspect(client, { depth: 9, showHidden: true }).includes('FAKE') && !JSON.stringify(client).includes('FAKE'));
});

test('every code of the contract is a state', () => {
  assert.deepEqual(Object.keys(codes).sort(), process.env.LOCKWOOD_CODES?.split(' '));
});
