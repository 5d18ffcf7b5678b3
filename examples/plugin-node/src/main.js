// The process: it makes sure that Lockwood started it, listens on a socket that
// only Lockwood can use, announces it, and ends with Lockwood.

import { join } from 'node:path';

import { Server } from '@grpc/grpc-js';

import { version } from '../package.json';
import { FileKey, SCHEME } from './filekey.js';
import { announcement, introduction, negotiate, startedByHost } from './handshake.js';
import * as log from './log.js';
import { service } from './protocol.js';
import { makeHandlers } from './service.js';
import { makeCredentials } from './tls.js';
import { parsePath } from './uri.js';

const MAX_MESSAGE = 64 << 10; // bytes, in either direction: plugins/keyprovider.proto

async function main() {
  if (!startedByHost(process.env)) {
    process.stderr.write(introduction(SCHEME));
    process.exitCode = 1;
    return;
  }
  endWithHost();
  const { credentials, certificate } = await makeCredentials(process.env);
  const server = new Server({
    'grpc.max_receive_message_length': MAX_MESSAGE,
    'grpc.max_send_message_length': MAX_MESSAGE,
  });
  server.addService(service, makeHandlers({ scheme: SCHEME, version, open: (uri) => new FileKey(parsePath(uri)) }));
  const socket = join(process.env.PLUGIN_UNIX_SOCKET_DIR ?? '', 'socket');
  await listen(server, `unix:${socket}`, credentials);
  process.stdout.write(announcement(negotiate(process.env), socket, certificate));
}

function listen(server, address, credentials) {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error) => (error ? reject(error) : resolve()));
  });
}

// Lockwood holds the other end of standard input: however it ends, the kernel
// closes it. SIGINT is ignored, since Ctrl-C in a terminal may reach the plugin
// too, and Lockwood may need it until the last request is answered. SIGUSR1 would
// open Node.js's debugger, and with it the memory, to every user of the machine.
function endWithHost() {
  const end = () => process.exit(0);
  process.stdin.on('end', end).on('error', end).resume();
  process.on('SIGTERM', end);
  process.on('SIGINT', () => {});
  process.on('SIGUSR1', () => {});
}

main().catch((error) => {
  log.error('the plugin cannot start', { error: error.message });
  process.exit(1);
});
