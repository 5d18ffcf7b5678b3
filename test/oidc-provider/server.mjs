// An authorization server that rotates refresh tokens and takes the reuse of one for theft:
// it revokes the grant then. It prints a line of JSON when it listens, with a refresh token
// that nobody has used, and one for each grant of it, refused or not.
//
//	node server.mjs
//
// Every secret in it is made up.

import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const clientID = "FAKE-client";
const client = {
  client_id: clientID,
  client_secret: "FAKE-client-secret-of-oidc-provider",
  grant_types: ["refresh_token", "authorization_code"],
  redirect_uris: ["https://client.example.com/callback"],
  token_endpoint_auth_method: "client_secret_basic",
};

const server = createServer();
await new Promise((listens) => server.listen(0, "127.0.0.1", listens));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [client],
  rotateRefreshToken: true,
  scopes: ["openid", "offline_access"],
  features: { devInteractions: { enabled: false }, revocation: { enabled: true } },
  ttl: { AccessToken: 3600, RefreshToken: 86400, Grant: 86400 },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});
for (const event of ["grant.success", "grant.error", "grant.revoked", "server_error"]) {
  provider.on(event, (_, detail) => say({ event, error: detail?.error }));
}
server.on("request", provider.callback());

const accountId = "FAKE-account";
const grant = new provider.Grant({ accountId, clientId: clientID });
grant.addOIDCScope("openid offline_access");
const grantId = await grant.save();
const token = new provider.RefreshToken({
  accountId,
  client: await provider.Client.find(clientID),
  grantId,
  scope: "openid offline_access",
  gty: "authorization_code",
  authTime: Math.floor(Date.now() / 1000),
});
say({ event: "listening", issuer, client_id: clientID, client_secret: client.client_secret, refresh_token: await token.save() });
