// A second implementation of docs/format.md, on Node's crypto (OpenSSL) and
// nothing of Go's. The vectors beside it were written by these functions, once;
// check.mjs reads them back with the same functions.

import { createCipheriv, createDecipheriv, createHash, hkdfSync } from "node:crypto";

const empty = Buffer.alloc(0);

/** HKDF-SHA256 without salt (RFC 5869). */
export function hkdf(ikm, info, length) {
  return Buffer.from(hkdfSync("sha256", ikm, empty, info, length));
}

/** Section 3: the record key and the key ID of a data key. */
export function derive(dataKey) {
  const okm = hkdf(dataKey, "lockwood/1 record", 48);
  return { okm, recordKey: okm.subarray(0, 32), keyID: okm.subarray(32) };
}

/** Section 4: a list of strings; an optional one is { optional: string | null }. */
export function encodeAAD(values) {
  return Buffer.concat(values.map((v) => {
    if (typeof v === "string") return lengthPrefixed(v);
    if (v.optional === null) return Buffer.from([0]);
    return Buffer.concat([Buffer.from([1]), lengthPrefixed(v.optional)]);
  }));
}

function lengthPrefixed(s) {
  if (s.includes("\0")) throw new Error("NUL in aad");
  const bytes = Buffer.from(s, "utf8");
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** Section 5: the aad of a credential. */
export function credentialAAD(c) {
  const values = [
    "lockwood/1 credential", c.column, String(c.user_id), c.mcp_server_id, c.token_endpoint,
    { optional: c.client_id }, { optional: c.token_endpoint_auth_method },
  ];
  if (c.column === "refresh_token_enc") {
    values.push(c.has_client_secret ? "client secret" : "no client secret");
  }
  return encodeAAD(values);
}

function gcmSeal(key, nonce, plaintext, aad) {
  const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 });
  cipher.setAAD(aad);
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  return { ciphertext, tag: cipher.getAuthTag() };
}

/** Throws unless the tag is right. */
function gcmOpen(key, nonce, ciphertext, tag, aad) {
  const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 });
  decipher.setAAD(aad);
  decipher.setAuthTag(tag);
  return Buffer.concat([decipher.update(ciphertext), decipher.final()]);
}

/** Section 5.1: what an access token is bound to, and what a mark is. */
export function accessTokenAAD(c) {
  return encodeAAD(["lockwood/1 access token", String(c.user_id), c.mcp_server_id, String(c.credential_id), c.token_endpoint]);
}

export function markAAD(c) {
  const digest = createHash("sha256").update(c.refresh_token, "utf8").digest("hex");
  return encodeAAD(["lockwood/1 refresh token mark", c.column, String(c.user_id), c.mcp_server_id, String(c.credential_id), digest]);
}

/** Section 6: a record of format 1. A writer draws the nonce at random. */
export function seal(dataKey, nonce, plaintext, aad) {
  const { recordKey, keyID } = derive(dataKey);
  const { ciphertext, tag } = gcmSeal(recordKey, nonce, plaintext, aad);
  return Buffer.concat([Buffer.from("LKW1"), keyID, nonce, ciphertext, tag]);
}

export function open(dataKey, record, aad) {
  const { recordKey, keyID } = derive(dataKey);
  if (record.length < 48) throw new Error("short record");
  if (record.toString("latin1", 0, 4) !== "LKW1") throw new Error("no magic");
  if (!record.subarray(4, 20).equals(keyID)) throw new Error("another key ID");
  return gcmOpen(recordKey, record.subarray(20, 32), record.subarray(32, -16), record.subarray(-16), aad);
}

/** Section 7: a legacy record, nonce | tag | ciphertext. */
export function legacySeal(value, nonce, plaintext) {
  const { ciphertext, tag } = gcmSeal(legacyKey(value), nonce, plaintext, empty);
  return Buffer.concat([nonce, tag, ciphertext]);
}

export function legacyOpen(value, record) {
  if (record.length < 28) throw new Error("short record");
  return gcmOpen(legacyKey(value), record.subarray(0, 12), record.subarray(28), record.subarray(12, 28), empty);
}

function legacyKey(value) {
  return hkdf(Buffer.from(value, "utf8"), "forest-executor:mcp-oauth-credentials", 32);
}

/** Section 9: the aad of a wrap, and wrapping by the environment key. */
export function wrapAAD(storeID, version) {
  return encodeAAD(["lockwood/1 data key", storeID, version]);
}

export function envKEK(value) {
  return {
    kek: hkdf(Buffer.from(value, "utf8"), "lockwood/1 envkey kek", 32),
    key: "envkey:" + hkdf(Buffer.from(value, "utf8"), "lockwood/1 envkey id", 8).toString("hex"),
  };
}

export function envWrap(value, nonce, dataKey, aad) {
  const { ciphertext, tag } = gcmSeal(envKEK(value).kek, nonce, dataKey, aad);
  return Buffer.concat([nonce, ciphertext, tag]);
}

export function envUnwrap(value, wrapped, aad) {
  if (wrapped.length !== 60) throw new Error("a wrapped key has 60 bytes");
  return gcmOpen(envKEK(value).kek, wrapped.subarray(0, 12), wrapped.subarray(12, 44), wrapped.subarray(44), aad);
}
