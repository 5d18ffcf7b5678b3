// The executor is CommonJS, which can require an ES module from Node.js 20.19 and 22.12 on.
const assert = require('node:assert/strict');
const { test } = require('node:test');

test('a CommonJS program requires the client', () => {
  const { ExecutorTokenService } = require('@lockwood-kms/client');
  const service = new ExecutorTokenService({ url: 'https://lockwood.example.com', authSecret: 'FAKE' });
  assert.equal(typeof service.getAccessToken, 'function');
});
