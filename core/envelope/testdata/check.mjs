// Checks every vector file against format.mjs. It writes nothing but its result:
//
//	node core/envelope/testdata/check.mjs

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as format from "./format.mjs";

const load = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
const bytes = (hex) => Buffer.from(hex, "hex");
const hex = (buffer) => buffer.toString("hex");
const named = (list, name) => list.find((entry) => entry.name === name);
let checks = 0;

function equal(got, want, name) {
  assert.equal(got, want, name);
  checks++;
}

function fails(action, name) {
  assert.throws(action, undefined, name);
  checks++;
}

function checkFormat1() {
  const v = load("format1.json");
  for (const k of v.keys) {
    const { recordKey, keyID } = format.derive(bytes(k.data_key));
    equal(hex(recordKey), k.record_key, k.name);
    equal(hex(keyID), k.key_id, k.name);
  }
  for (const a of v.aad) equal(hex(format.encodeAAD(a.values)), a.aad, a.name);
  for (const values of v.aad_refused) fails(() => format.encodeAAD(values), "NUL");
  for (const c of v.valid) {
    const dataKey = bytes(named(v.keys, c.key).data_key);
    const aad = bytes(named(v.aad, c.aad).aad);
    equal(hex(format.open(dataKey, bytes(c.record), aad)), c.plaintext, c.name);
    equal(hex(format.seal(dataKey, bytes(c.nonce), bytes(c.plaintext), aad)), c.record, c.name);
  }
  for (const c of v.invalid) {
    const dataKey = bytes(named(v.keys, c.key).data_key);
    fails(() => format.open(dataKey, bytes(c.record), bytes(named(v.aad, c.aad).aad)), c.name);
  }
}

function checkLegacy() {
  const v = load("legacy.json");
  for (const c of v.vectors) {
    const record = bytes(c.ciphertext_hex);
    equal(format.legacyOpen(c.key, record).toString("utf8"), c.plaintext, c.plaintext_name);
    const resealed = format.legacySeal(c.key, record.subarray(0, 12), Buffer.from(c.plaintext, "utf8"));
    equal(hex(resealed), c.ciphertext_hex, c.plaintext_name);
  }
}

// Section 8.
function read(v, c) {
  const record = bytes(c.record);
  const magic = record.length >= 48 && record.toString("latin1", 0, 4) === "LKW1";
  const keyID = magic ? hex(record.subarray(4, 20)) : "";
  for (const dataKey of [v.primary, ...v.enabled]) {
    if (hex(format.derive(bytes(dataKey)).keyID) === keyID) {
      const plaintext = tryOpen(() => format.open(bytes(dataKey), record, bytes(v.aad)));
      return plaintext === undefined ? { want: "invalid" } : { want: "plaintext", stale: dataKey !== v.primary, plaintext };
    }
  }
  for (const value of c.legacy) {
    const plaintext = tryOpen(() => format.legacyOpen(value, record));
    if (plaintext !== undefined) return { want: "plaintext", stale: true, plaintext };
  }
  return { want: magic ? "unknown key" : "invalid" };
}

function tryOpen(open) {
  try {
    return hex(open());
  } catch {
    return undefined;
  }
}

function checkReading() {
  const v = load("reading.json");
  for (const c of v.cases) {
    const { want, stale, plaintext } = read(v, c);
    equal(want, c.want, c.name);
    equal(stale, c.stale, c.name);
    equal(plaintext, c.plaintext, c.name);
  }
}

function checkCredentialAAD() {
  for (const c of load("../../../credential/testdata/aad.json").cases) {
    equal(hex(format.credentialAAD(c)), c.aad, c.name);
  }
}

function checkAccessTokens() {
  const v = load("../../../access/testdata/access_tokens.json");
  const key = bytes(v.data_key);
  const label = Buffer.from("lockwood/1 access token\0");
  const opensToken = (c) => {
    const record = bytes(c.record);
    if (record.toString("latin1", 0, 4) !== "LKW1") throw new Error("a legacy record is none");
    const plaintext = format.open(key, record, format.accessTokenAAD(c));
    if (!plaintext.subarray(0, label.length).equals(label)) throw new Error("no label");
    return plaintext.subarray(label.length).toString("utf8");
  };
  for (const c of v.access_tokens) {
    const aad = format.accessTokenAAD(c);
    equal(hex(aad), c.aad, c.name);
    equal(opensToken(c), c.access_token, c.name);
    equal(hex(format.seal(key, bytes(c.nonce), Buffer.concat([label, Buffer.from(c.access_token)]), aad)), c.record, c.name);
  }
  const opensMark = (c) => {
    if (format.open(key, bytes(c.record), format.markAAD(c)).length > 0) throw new Error("a mark is empty");
  };
  for (const c of v.marks) {
    equal(hex(format.markAAD(c)), c.aad, c.name);
    opensMark(c);
    equal(hex(format.seal(key, bytes(c.nonce), Buffer.alloc(0), format.markAAD(c))), c.record, c.name);
  }
  for (const c of v.invalid_access_tokens) fails(() => opensToken(c), c.name);
  for (const c of v.invalid_marks) fails(() => opensMark(c), c.name);
}

function checkWrap() {
  const v = load("../../testdata/wrap.json");
  for (const c of v.wrap_aad) equal(hex(format.wrapAAD(c.store_id, c.version)), c.aad, c.store_id);
  for (const c of v.envkey) {
    const { kek, key } = format.envKEK(c.value);
    equal(hex(kek), c.kek, c.key);
    equal(key, c.key, c.key);
    equal(hex(format.envWrap(c.value, bytes(c.nonce), bytes(c.data_key), bytes(c.aad))), c.wrapped, c.key);
    equal(hex(format.envUnwrap(c.value, bytes(c.wrapped), bytes(c.aad))), c.data_key, c.key);
  }
  for (const c of v.envkey_invalid) {
    fails(() => format.envUnwrap(c.value, bytes(c.wrapped), bytes(c.aad)), c.name);
  }
}

checkFormat1();
checkLegacy();
checkReading();
checkCredentialAAD();
checkAccessTokens();
checkWrap();
console.log(`${checks} checks passed`);
