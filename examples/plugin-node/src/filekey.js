// The key provider: KEKs in a file. This is the part that an author replaces, with
// three functions that ask an HSM or a KMS: wrap, unwrap and status. The file
// stands in for the HSM, so that the example needs none; see README.md for how
// little such a key protects.
//
// The file holds 32 random bytes for each version of the KEK, the newest last:
//
//   head -c 32 /dev/urandom >  key     the first version
//   head -c 32 /dev/urandom >> key     a rotation
//
// It is read for each call. Whoever takes it away, or its rights, is obeyed at the
// next one, and no KEK stays in memory between two.

import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

import { invalidCiphertext, keyDenied, keyMissing, unavailable } from './errors.js';

export const SCHEME = 'filekey';

const KEY_SIZE = 32;
const MAX_VERSIONS = 64;
const CIPHER = 'aes-256-gcm';
const NONCE_SIZE = 12;
const TAG = { authTagLength: 16 }; // Node.js would take a tag of 4 bytes
const WRAP_SIZE = NONCE_SIZE + KEY_SIZE + TAG.authTagLength;

/** The KEK in the file at path. The path names the key: a file that is moved is another key. */
export class FileKey {
  #path;

  constructor(path) {
    this.#path = path;
  }

  /** Wraps a data key under the newest version: nonce | ciphertext | tag. */
  async wrap(dataKey, aad) {
    return this.#withVersions((versions) => {
      const { id, kek } = versions.at(-1);
      const nonce = randomBytes(NONCE_SIZE); // wraps are few, so random ones do not meet: SP 800-38D, 8.3
      const cipher = createCipheriv(CIPHER, kek, nonce, TAG).setAAD(aad);
      const wrapped = Buffer.concat([nonce, cipher.update(dataKey), cipher.final(), cipher.getAuthTag()]);
      return { kekId: id, wrapped };
    });
  }

  /** Returns the data key in a wrap by any version that the file holds. */
  async unwrap({ kekId, wrapped }, aad) {
    return this.#withVersions((versions) => {
      const version = versions.find(({ id }) => id === kekId);
      if (version === undefined || wrapped.length !== WRAP_SIZE) {
        throw invalidCiphertext();
      }
      return decrypt(version.kek, wrapped, aad);
    });
  }

  /** Returns the ID of the version that wraps now, or throws what wrap would. */
  async status() {
    return this.#withVersions((versions) => ({ kekId: versions.at(-1).id, warnings: [] }));
  }

  /** Calls use with all versions of the KEK, oldest first, and clears them afterwards. */
  async #withVersions(use) {
    const bytes = await read(this.#path);
    const versions = [];
    try {
      for (let at = 0; at < bytes.length; at += KEY_SIZE) {
        versions.push(derive(this.#path, bytes.subarray(at, at + KEY_SIZE)));
      }
      return use(versions);
    } finally {
      bytes.fill(0);
      versions.forEach(({ kek }) => kek.fill(0));
    }
  }
}

// The KEK and the version in its ID are derived from the bytes apart from each
// other (RFC 5869). The ID commits to the key, so that a version cannot be taken
// for another, and tells nothing of it.
function derive(path, bytes) {
  const part = (info, size) => Buffer.from(hkdfSync('sha256', bytes, '', `lockwood-filekey/1 ${info}`, size));
  return { id: `${SCHEME}:${path}#${part('version', 16).toString('hex')}`, kek: part('kek', KEY_SIZE) };
}

function decrypt(kek, wrapped, aad) {
  const decipher = createDecipheriv(CIPHER, kek, wrapped.subarray(0, NONCE_SIZE), TAG);
  decipher.setAAD(aad).setAuthTag(wrapped.subarray(-TAG.authTagLength));
  const dataKey = decipher.update(wrapped.subarray(NONCE_SIZE, -TAG.authTagLength));
  try {
    decipher.final(); // nothing is returned before the tag was checked
    return dataKey;
  } catch {
    dataKey.fill(0);
    throw invalidCiphertext();
  }
}

/** Returns the content of the key file, of which the caller is to clear the bytes. */
async function read(path) {
  let file;
  try {
    // Without O_NONBLOCK a pipe in the file's place would be waited for.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    checkFile(path, await file.stat());
    return await readKeys(path, file);
  } catch (error) {
    throw fromSystem(path, error);
  } finally {
    await file?.close();
  }
}

// A key that others can read is none: it is refused until its owner has seen that.
function checkFile(path, stat) {
  if (!stat.isFile()) {
    throw unavailable(`${path} is not a regular file`);
  }
  if ((stat.mode & 0o077) !== 0 || (stat.mode & 0o400) === 0) {
    const mode = (stat.mode & 0o777).toString(8).padStart(4, '0');
    throw keyDenied(`${path} has the mode ${mode}; only its owner may read the key: run: chmod 0600 ${path}`);
  }
}

async function readKeys(path, file) {
  const buffer = Buffer.alloc((MAX_VERSIONS + 1) * KEY_SIZE);
  const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
  if (bytesRead === 0) {
    throw keyMissing(`${path} is empty; write a key to it: head -c ${KEY_SIZE} /dev/urandom > ${path}`);
  }
  if (bytesRead % KEY_SIZE !== 0 || bytesRead === buffer.length) {
    buffer.fill(0);
    throw unavailable(`${path} is not 1 to ${MAX_VERSIONS} keys of ${KEY_SIZE} bytes; restore it, or finish writing it`);
  }
  return buffer.subarray(0, bytesRead);
}

// Only what the system says in as many words is an answer. Whatever else, such as
// a volume that went away, is an outage, and the data keys in use stay.
function fromSystem(path, error) {
  switch (error.code) {
    case 'ENOENT':
      return keyMissing(`${path} does not exist; the key is used as soon as it appears there`);
    case 'EACCES':
    case 'EPERM':
      return keyDenied(`${path} may not be read (${error.code}); give the file to the user of the service: chown`);
  }
  return error.errno === undefined ? error : unavailable(`${path} cannot be read (${error.code})`);
}
