import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { McpServer, WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/server';

import { LockwoodAuthProvider } from '@lockwood-kms/client';

import { deposit, listen, newClient } from './lockwood.js';

/**
 * Starts an MCP server that answers 401 to the tokens that it rejects.
 * @param {import('node:test').TestContext} t
 */
async function startServer(t) {
  /** @type {Set<string>} */
  const rejects = new Set();
  /** @type {string[]} */
  const bearers = [];
  const url = await listen(t, async (request, response) => {
    const bearer = request.headers.authorization ?? '';
    bearers.push(bearer);
    if (!bearer.startsWith('Bearer FAKE-at-') || rejects.has(bearer)) {
      response.writeHead(401).end();
      return;
    }
    const body = [];
    for await (const chunk of request) body.push(chunk);
    const server = new McpServer({ name: 'test', version: '1.0.0' });
    server.registerTool('greet', { description: 'Says hello.' }, () => ({ content: [{ type: /** @type {const} */ ('text'), text: 'hello' }] }));
    const transport = new WebStandardStreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
    await server.connect(transport);
    const answer = await transport.handleRequest(
      new Request(`http://${request.headers.host}${request.url}`, {
        method: request.method, headers: /** @type {Record<string, string>} */ (request.headers), body: body.length > 0 ? Buffer.concat(body) : undefined,
      }),
    );
    response.writeHead(answer.status, Object.fromEntries(answer.headers)).end(Buffer.from(await answer.arrayBuffer()));
  });
  return { url: new URL(`${url}/mcp`), rejects, bearers };
}

test('an MCP client lists tools, and goes on after a 401', async t => {
  const lockwood = newClient();
  await deposit(lockwood, 'granted', 'srv');
  const server = await startServer(t);
  const transport = new StreamableHTTPClientTransport(server.url, { authProvider: new LockwoodAuthProvider(lockwood, 'srv') });
  const client = new Client({ name: 'test', version: '1.0.0' });
  await client.connect(transport);
  t.after(() => client.close());
  assert.deepEqual((await client.listTools()).tools.map(tool => tool.name), ['greet']);
  assert.deepEqual(new Set(server.bearers), new Set(['Bearer FAKE-at-1']));

  server.rejects.add('Bearer FAKE-at-1');
  assert.equal((await client.listTools()).tools.length, 1);
  assert.equal(server.bearers.at(-1), 'Bearer FAKE-at-2');

  await lockwood.disconnect('srv');
  await assert.rejects(client.listTools(), { state: 'needs_reauth' });
});

test('requests that fail together replace the token once', async () => {
  const lockwood = newClient();
  await deposit(lockwood, 'granted', 'srv');
  const provider = new LockwoodAuthProvider(lockwood, 'srv');
  assert.equal(await provider.token(), 'FAKE-at-1');
  await Promise.all(Array.from({ length: 10 }, () => provider.onUnauthorized()));
  assert.equal(await provider.token(), 'FAKE-at-2');
});

test('a 401 to a token that was replaced before rejects nothing', async t => {
  const lockwood = newClient();
  await deposit(lockwood, 'granted', 'srv');
  const provider = new LockwoodAuthProvider(lockwood, 'srv');
  let now = performance.now();
  t.mock.method(performance, 'now', () => now);
  await provider.token();
  await provider.onUnauthorized();
  assert.equal(await provider.token(), 'FAKE-at-2');
  now += 9_000;
  await provider.onUnauthorized();
  assert.equal(await provider.token(), 'FAKE-at-2');
  now += 2_000;
  await provider.onUnauthorized();
  assert.equal(await provider.token(), 'FAKE-at-3');
});
