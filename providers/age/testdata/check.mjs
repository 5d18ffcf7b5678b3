// Opens the X25519 wraps of wraps.json with Node's crypto and no code of the Go
// implementation, from docs/format.md, section 9.4, and https://c2sp.org/age.
// Run it with: node providers/age/testdata/check.mjs
import crypto from 'node:crypto';
import fs from 'node:fs';

const alphabet = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l';

// decode returns the bytes of Bech32 text, without looking at its checksum.
function decode(text) {
  const data = text.toLowerCase().slice(text.lastIndexOf('1') + 1, -6);
  const bits = [...data].map(c => alphabet.indexOf(c).toString(2).padStart(5, '0')).join('');
  return Buffer.from(bits.match(/.{8}/g).map(b => parseInt(b, 2)));
}

const hkdf = (key, salt, info) => Buffer.from(crypto.hkdfSync('sha256', key, salt, info, 32));

function open(key, nonce, sealed) {
  const c = crypto.createDecipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
  c.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([c.update(sealed.subarray(0, -16)), c.final()]);
}

function keyAgreement(secret, share) {
  const privateKey = crypto.createPrivateKey({
    key: Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), secret]), format: 'der', type: 'pkcs8',
  });
  const publicKey = crypto.createPublicKey({
    key: Buffer.concat([Buffer.from('302a300506032b656e032100', 'hex'), share]), format: 'der', type: 'spki',
  });
  return crypto.diffieHellman({ privateKey, publicKey });
}

// decrypt returns the plaintext of an age file of one X25519 stanza.
function decrypt(file, identity, recipient) {
  const end = file.indexOf('\n--- ') + 4;
  const [version, stanza, body] = file.subarray(0, end).toString('latin1').split('\n');
  const [, type, argument] = stanza.split(' ');
  if (version !== 'age-encryption.org/v1' || type !== 'X25519') throw new Error('another kind of file');
  const share = Buffer.from(argument, 'base64');
  const wrapping = hkdf(keyAgreement(identity, share), Buffer.concat([share, recipient]), 'age-encryption.org/v1/X25519');
  const fileKey = open(wrapping, Buffer.alloc(12), Buffer.from(body, 'base64'));
  const mac = crypto.createHmac('sha256', hkdf(fileKey, '', 'header')).update(file.subarray(0, end)).digest();
  if (!mac.equals(Buffer.from(file.subarray(end + 1, end + 44).toString('latin1'), 'base64'))) throw new Error('wrong MAC');
  const payload = file.subarray(end + 45);
  const last = Buffer.alloc(12);
  last[11] = 1; // the first chunk, counted from 0, and the last
  return open(hkdf(fileKey, payload.subarray(0, 16), 'payload'), last, payload.subarray(16));
}

function aad(...values) {
  return Buffer.concat(values.flatMap(v => {
    const size = Buffer.alloc(4);
    size.writeUInt32BE(Buffer.byteLength(v));
    return [size, Buffer.from(v)];
  }));
}

let checked = 0;
for (const w of JSON.parse(fs.readFileSync(new URL('wraps.json', import.meta.url)))) {
  if (!w.identity.startsWith('AGE-SECRET-KEY-1')) continue; // Node has no ML-KEM to rely on
  const want = Buffer.concat([
    Buffer.from('lockwood/1 age'),
    crypto.createHash('sha256').update(aad('lockwood/1 data key', w.store, w.version)).digest(),
    Buffer.from(w.data_key, 'hex'),
  ]);
  const got = decrypt(Buffer.from(w.wrapped, 'hex'), decode(w.identity), decode(w.recipient));
  if (!got.equals(want)) throw new Error(`${w.name}: another plaintext`);
  if (w.kek_id !== `age:${w.recipient}`) throw new Error(`${w.name}: another KEK ID`);
  checked++;
}
if (checked < 3) throw new Error('too few vectors');
console.log(`${checked} wraps opened`);
