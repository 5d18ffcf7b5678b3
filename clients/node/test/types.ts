// Compiled and not run: the types are those that TypeScript programs need.
import type { AuthProvider } from '@modelcontextprotocol/client';

import { ExecutorTokenService, LockwoodAuthProvider, LockwoodClient, LockwoodError, NeedsReauthError, signUserToken } from '@lockwood-kms/client';
import type { AccessToken, Credential, Deposit, State } from '@lockwood-kms/client';

const client = new LockwoodClient({ url: 'https://lockwood.example.com', userToken: async () => signUserToken('secret', 1), timeoutMs: 1 });
export const provider: AuthProvider = new LockwoodAuthProvider(client, 'srv');

// What the workflow executor calls.
interface TokenService {
  getAccessToken(userId: number, mcpServerId: string, options?: { forceRefresh?: boolean }): Promise<string>;
  evict(userId: number, mcpServerId: string): void;
}
declare const errors: {
  OAuthReauthRequiredError: new (mcpServerId: string, reason?: string) => Error;
  OAuthRefreshError: new (message: string, cause?: unknown) => Error;
  ExecutorEncryptionKeyMissingError: new () => Error;
  SomethingElse: string;
};
export const service: TokenService = new ExecutorTokenService({ url: 'https://lockwood.example.com', authSecret: 'secret', errors });

export async function use(deposit: Deposit): Promise<State | undefined> {
  try {
    await client.deposit(deposit, { signal: AbortSignal.timeout(1000) });
    const token: AccessToken = await client.accessToken('srv', { rejectedToken: 'x', minValiditySeconds: 60 });
    const list: Credential[] = await client.list();
    await client.disconnect(list[0]?.mcpServerId ?? token.accessToken);
    return undefined;
  } catch (error) {
    if (error instanceof NeedsReauthError) return error.awaitingInputReason === 'needs-oauth-reauth' ? error.state : undefined;
    if (error instanceof LockwoodError) return error.temporary ? undefined : error.state;
    throw error;
  }
}

// @ts-expect-error: a demand has no such field
void client.accessToken('srv', { rejected: 'x' });
// @ts-expect-error: a deposit needs a token endpoint
void client.deposit({ mcpServerId: 's', refreshToken: 'r' });
