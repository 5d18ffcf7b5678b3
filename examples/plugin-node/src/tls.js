// Mutual TLS between two processes of one machine. Both sides make a key and a
// certificate that nobody else has seen and that end with them: Lockwood's is in
// the environment, ours goes out in the announcement. A socket that another
// process could reach is therefore still of no use to it.
//
// Node.js makes keys and no certificates; @peculiar/x509 does. It is maintained,
// signs with the WebCrypto of Node.js, and brings no cryptography of its own.

import 'reflect-metadata'; // what @peculiar/x509 is built on; it comes first

import { KeyObject, webcrypto } from 'node:crypto';

import { ServerCredentials } from '@grpc/grpc-js';
import * as x509 from '@peculiar/x509';

const KEY = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const HOST = 'localhost'; // the name that Lockwood expects
const MINUTE = 60_000;
const YEAR = 365 * 24 * 60 * MINUTE;

/**
 * Makes the credentials of the server, which lets in the one certificate in env,
 * and the certificate to announce, in DER.
 */
export async function makeCredentials(env) {
  const client = env.PLUGIN_CLIENT_CERT;
  if (!client) {
    throw new Error('PLUGIN_CLIENT_CERT is missing: without mutual TLS anybody could ask for data keys');
  }
  const { certificate, privateKey } = await selfSigned();
  const pair = { cert_chain: Buffer.from(certificate.toString('pem')), private_key: privateKey };
  return {
    credentials: ServerCredentials.createSsl(Buffer.from(client), [pair], true), // true: ask for it, and refuse without
    certificate: Buffer.from(certificate.rawData),
  };
}

async function selfSigned() {
  x509.cryptoProvider.set(webcrypto);
  const keys = await webcrypto.subtle.generateKey(KEY, true, ['sign', 'verify']);
  const now = Date.now();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${HOST}`,
    keys,
    signingAlgorithm: KEY,
    notBefore: new Date(now - MINUTE), // as clocks differ by a second
    notAfter: new Date(now + 10 * YEAR), // longer than the process: it is never renewed
    extensions: [
      new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: HOST }]),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    ],
  });
  const privateKey = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' });
  return { certificate, privateKey: Buffer.from(privateKey) };
}
