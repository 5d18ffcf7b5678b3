import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';

import { ExecutorTokenService, LockwoodError, NeedsReauthError } from '@lockwood-kms/client';

import { authSecret, deposit, newClient, newUser, url } from './lockwood.js';

// The executor's errors, as far as it tells them apart.
class OAuthReauthRequiredError extends Error {
  /** @param {string} mcpServerId */
  constructor(mcpServerId) {
    super(`OAuth re-authentication required for mcpServerId="${mcpServerId}"`);
    this.awaitingInputReason = 'needs-oauth-reauth';
  }
}
class OAuthRefreshError extends Error {
  /** @param {string} message @param {unknown} [cause] */
  constructor(message, cause) {
    super(`OAuth token refresh failed: ${message}`);
    this.cause = cause;
  }
}
class ExecutorEncryptionKeyMissingError extends Error {
  code = 'executor_encryption_key_missing';
}
const errors = { OAuthReauthRequiredError, OAuthRefreshError, ExecutorEncryptionKeyMissingError };

/** @param {object} [options] */
const newService = (options = {}) => new ExecutorTokenService({ url, authSecret, errors, ...options });

test('tokens are per user and server', async () => {
  const service = newService();
  const [one, other] = [newUser(), newUser()];
  await deposit(newClient(one), 'granted', 'srv');
  assert.equal(await service.getAccessToken(one, 'srv'), 'FAKE-at-1');
  assert.equal(await service.getAccessToken(one, 'srv', {}), 'FAKE-at-1');
  await assert.rejects(service.getAccessToken(other, 'srv'), OAuthReauthRequiredError);
  await assert.rejects(service.getAccessToken(one, 'another'), OAuthReauthRequiredError);
});

test('forceRefresh rejects the token that was given out', async () => {
  const service = newService();
  const user = newUser();
  await deposit(newClient(user), 'granted', 'srv');
  assert.equal(await service.getAccessToken(user, 'srv'), 'FAKE-at-1');
  const all = await Promise.all(Array.from({ length: 10 }, () => service.getAccessToken(user, 'srv', { forceRefresh: true })));
  assert.deepEqual(new Set(all), new Set(['FAKE-at-2']));
  assert.equal(await service.getAccessToken(user, 'srv'), 'FAKE-at-2');
  // A service that gave out none, as after a restart, forces a grant all the same.
  assert.equal(await newService().getAccessToken(user, 'srv', { forceRefresh: true }), 'FAKE-at-3');
});

test('forceRefresh rejects nothing within 10 s of a replacement', async t => {
  const service = newService();
  const user = newUser();
  await deposit(newClient(user), 'granted', 'srv');
  let now = performance.now();
  t.mock.method(performance, 'now', () => now);
  assert.equal(await service.getAccessToken(user, 'srv'), 'FAKE-at-1');
  const force = () => service.getAccessToken(user, 'srv', { forceRefresh: true });
  assert.equal(await force(), 'FAKE-at-2');
  now += 9_000;
  assert.equal(await force(), 'FAKE-at-2');
  now += 2_000;
  assert.equal(await force(), 'FAKE-at-3');
});

test('evict forgets, and a disconnect counts at once', async () => {
  const service = newService();
  const user = newUser();
  const client = newClient(user);
  await deposit(client, 'granted', 'srv');
  assert.equal(await service.getAccessToken(user, 'srv'), 'FAKE-at-1');
  assert.equal(service.evict(user, 'srv'), undefined);
  assert.equal(await service.getAccessToken(user, 'srv'), 'FAKE-at-1');
  await client.disconnect('srv');
  await assert.rejects(service.getAccessToken(user, 'srv'), { awaitingInputReason: 'needs-oauth-reauth' });
});

test("errors are the executor's own", async () => {
  const service = newService({ maxWaitMs: 0 });
  const user = newUser();
  const client = newClient(user);
  for (const [does, kind] of /** @type {const} */ ([
    ['dead', OAuthReauthRequiredError], ['refused', OAuthRefreshError], ['failed', OAuthRefreshError], ['unavailable', OAuthRefreshError],
  ])) {
    await deposit(client, does);
    for (const forceRefresh of [false, true]) {
      await assert.rejects(service.getAccessToken(user, does, { forceRefresh }), error => error instanceof kind && !inspect(error).includes('FAKE'), does);
    }
  }
  const noKey = newService({ fetch: async () => new Response('{"code":"executor_encryption_key_missing"}', { status: 503 }) });
  await assert.rejects(noKey.getAccessToken(user, 'srv'), ExecutorEncryptionKeyMissingError);
  const away = newService({ url: 'http://127.0.0.1:1' });
  await assert.rejects(away.getAccessToken(user, 'srv'), OAuthRefreshError);
  const own = newService({ errors: undefined });
  await assert.rejects(own.getAccessToken(user, 'none'), NeedsReauthError);
  await assert.rejects(own.getAccessToken(user, 'refused'), LockwoodError);
});

test('a service that cannot work says so at the start', () => {
  assert.throws(() => newService({ authSecret: '' }), TypeError);
  assert.throws(() => newService({ url: 'lockwood' }), TypeError);
  assert.ok(!inspect(newService({ authSecret: 'FAKE-secret' }), { depth: 9, showHidden: true }).includes('FAKE'));
});
