// The service of plugins/keyprovider.proto around a provider: it keeps the order of
// calls and the limits of the protocol, so that a provider has to do with keys
// only. An author of another plugin takes it as it is.

import { randomBytes } from 'node:crypto';

import { invalidCall, invalidConfiguration, isFailure, toStatus, unavailable } from './errors.js';
import * as log from './log.js';
import { Health } from './protocol.js';

const DATA_KEY_SIZE = 32;
const MAX_AAD_FIELDS = 16;
const MAX_AAD_VALUE = 1024; // bytes
const AAD_NAME = /^[a-z0-9_]{1,64}$/;

/**
 * Returns the handlers of the service. open makes a provider of a key URI; it does
 * not reach for the network, and throws invalidConfiguration for a URI that is wrong.
 */
export function makeHandlers({ scheme, version, open }) {
  let provider;
  let closed = false;

  const configured = () => {
    if (provider === undefined || closed) {
      throw unavailable(closed ? 'the plugin is closed' : 'the plugin is not configured yet');
    }
    return provider;
  };

  return answering({
    configure({ keyUri }) {
      if (provider !== undefined) {
        throw invalidConfiguration('a process serves one key, and this one is configured already');
      }
      provider = open(keyUri);
      return {};
    },

    async generateDataKey({ aad }) {
      const plaintext = randomBytes(DATA_KEY_SIZE);
      return { plaintext, wrapped: await configured().wrap(plaintext, encodeAAD(aad)) };
    },

    async wrapDataKey({ dataKey, aad }) {
      if (dataKey.length !== DATA_KEY_SIZE) {
        throw invalidCall(`a data key of ${dataKey.length} bytes; only ${DATA_KEY_SIZE} are wrapped`);
      }
      try {
        return { wrapped: await configured().wrap(dataKey, encodeAAD(aad)) };
      } finally {
        dataKey.fill(0);
      }
    },

    async unwrapDataKey({ wrapped, aad }) {
      const wrap = wrapped ?? { kekId: '', wrapped: Buffer.alloc(0) };
      return { dataKey: await configured().unwrap(wrap, encodeAAD(aad)) };
    },

    status: () => configured().status(),

    // Health is that of the process, whatever the state of the key.
    health: () => ({ state: Health.HEALTH_STATE_SERVING, scheme, version }),

    close() {
      closed = true;
      return {};
    },
  });
}

/**
 * Encodes aad so that no two lists of values encode alike: each value as its
 * length, 4 bytes big-endian, and its bytes.
 */
function encodeAAD(fields) {
  if (fields.length > MAX_AAD_FIELDS || new Set(fields.map(({ name }) => name)).size !== fields.length) {
    throw invalidCall(`aad of more than ${MAX_AAD_FIELDS} fields, or with a name twice`);
  }
  return Buffer.concat(fields.flatMap(encodeField));
}

function encodeField({ name, value }) {
  const bytes = Buffer.from(value);
  if (!AAD_NAME.test(name) || bytes.length > MAX_AAD_VALUE || bytes.includes(0)) {
    throw invalidCall('an aad field that breaks the limits of the protocol');
  }
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return [length, bytes];
}

/** Turns methods that return or throw into handlers of @grpc/grpc-js. */
function answering(methods) {
  const handlers = {};
  for (const [name, method] of Object.entries(methods)) {
    handlers[name] = async (call, callback) => {
      try {
        callback(null, await method(call.request));
      } catch (error) {
        if (!isFailure(error)) {
          log.error('a call failed unexpectedly', { method: name, error: error.name, stack: where(error) });
        }
        callback(toStatus(error));
      }
    };
  }
  return handlers;
}

// A stack without the message above it, which could repeat a value.
function where({ stack }) {
  return stack.split('\n').filter((line) => line.startsWith('    at ')).join('\n');
}
