package vault

import (
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// rule gives an answer its meaning. Its remedy may hold {mount}, {name}, {key}, {auth} and
// {method}, which stand for what the key URI says.
type rule struct {
	on     kind // operations it applies to
	status int
	says   []string // one of these is in an error text, in lower case; nil for any text
	remote.Answer
}

// Remedies that several rules share.
const (
	hintMissing  = "there is no key {name} at {mount}{where}: correct the key URI, restore the key from its backup, or, for a new store, create it with: vault write -f {key}"
	hintMount    = "no transit engine is mounted at {mount}{where}: correct the mount or the option namespace of the key URI (VAULT_NAMESPACE is not read), or enable the engine with: vault secrets enable -path={mount} transit"
	hintSpace    = "there is no namespace {space}: correct the option namespace or auth_namespace of the key URI, or create it with: vault namespace create {space}"
	hintLocked   = "the API of the namespace {space} is locked by an administrator: unlock it with: vault namespace unlock {space}"
	hintSpaced   = "the namespace {space} is sealed or not ready: unseal it, or look at: vault namespace lookup {space}"
	hintDerived  = "the key {name} was created with derived=true, and wants a context that binds less than aad does: create another with: vault write -f {mount}/keys/NAME"
	hintType     = "the key {name} is of a type that cannot carry associated data: create one of the type aes256-gcm96 with: vault write -f {mount}/keys/NAME"
	hintSoftly   = "the key {name} was deleted softly: restore it, or configure another"
	hintTooOld   = "the key's min_decryption_version is above the version of the wrap: lower it with: vault write {key}/config min_decryption_version=N"
	hintTrimmed  = "the version of the key that made the wrap was trimmed away"
	hintSealed   = "Vault is sealed, or has no active node: unseal it, or look at: vault status"
	hintStandby  = "the node is a standby that does not answer requests: let the address lead to the active node"
	hintBehind   = "the node has not caught up with the active one yet"
	hintQuota    = "a limit of Vault's rate or lease quotas is reached; look at sys/quotas"
	hintInternal = "Vault failed by itself; look at its log"
	hintProxy    = "something before Vault failed; look at the load balancer"
	hintInit     = "Vault is not initialized"

	hintIssuer  = "Vault could not fetch the keys of the issuer of the token in the file of jwt_file: look at the issuer, and at the network between it and Vault"
	hintAppRole = "the role ID or the secret ID is refused: it is wrong, has expired, or was used up; write new ones into the files of role_id_file and secret_id_file"
	hintRole    = "the login is refused: check that the role of the option role exists at auth/{auth}, and that its bound claims, audiences, service accounts and addresses fit the token in the file of jwt_file, which may have expired"
	hintAuth    = "no auth method {method} is enabled at auth/{auth}: correct the option auth_mount or auth_namespace, or enable it with: vault auth enable -path={auth} {method}"
)

// rules is the one table from what Vault and OpenBao answer to what the ring is
// told; the first that fits counts. Sources: "HTTP status codes" and "Transit
// secrets engine" of Vault's API documentation, and OpenBao's of the same names;
// they document statuses but few texts, so the texts are matched loosely. What is
// not in it decides nothing and is an outage.
var rules = []rule{
	// The namespace.
	{anything, 404, []string{textNoSpace}, remote.Denied(hintSpace)},
	{anything, 400, []string{"locked by an administrator"}, remote.Unavailable(hintLocked)},
	{anything, 403, []string{"locked by an administrator"}, remote.Unavailable(hintLocked)},
	{anything, 503, []string{"locked by an administrator"}, remote.Unavailable(hintLocked)},
	{anything, 503, []string{"namespace"}, remote.Unavailable(hintSpaced)},

	// The key.
	{transit, 400, []string{"encryption key not found"}, remote.Denied(hintMissing)},
	{wrapping, 400, []string{"key type " + noType}, remote.Denied(hintMissing)}, // it would have been created
	{transit, 400, []string{"soft-deleted", "soft deleted"}, remote.Denied(hintSoftly)},
	{transit, 400, []string{"too old", "disallowed by policy"}, remote.Denied(hintTooOld)},
	{transit, 400, []string{"no such key version"}, remote.Denied(hintTrimmed)},
	{transit, 400, []string{"derivation", "derived key", "missing 'context'", "convergent"}, remote.Denied(hintDerived)},
	{transit, 400, []string{"non-aead", "key type"}, remote.Denied(hintType)},
	{metadata, 404, []string{"no handler for route", "unsupported path"}, remote.Denied(hintMount)},
	{metadata, 404, nil, remote.Denied(hintMissing)},
	{transit, 404, nil, remote.Denied(hintMount)},
	{transit, 405, nil, remote.Denied(hintMount)},

	// The wrap.
	{unwrapping, 400, []string{"authentication failed", "invalid ciphertext", "unable to decrypt", "base64", "version is too new"}, notOpened},
	{unwrapping, 400, nil, remote.Answer{}}, // whether the key is in order decides

	// The login.
	{loggingIn, 404, nil, remote.Denied(hintAuth)},
	{loggingIn, 405, nil, remote.Denied(hintAuth)},
	{loggingIn, 403, []string{"no handler for route"}, remote.Denied(hintAuth)},
	{loggingIn, 400, []string{"fetching keys"}, remote.Unavailable(hintIssuer)},
	{loggingIn, 400, nil, remote.Denied("{refused}")},
	{loggingIn, 401, nil, remote.Denied("{refused}")},
	{loggingIn, 403, nil, remote.Denied("{refused}")},

	// The right: explained by what is missing.
	{anything, 403, nil, remote.Denied("")},
	{asking | session, 400, []string{"invalid token", "bad token"}, remote.Denied("")},

	// No answer.
	{anything, 412, nil, remote.Unavailable(hintBehind)},
	{anything, 429, nil, remote.Unavailable(hintQuota)},
	{anything, 472, nil, remote.Unavailable(hintStandby)},
	{anything, 473, nil, remote.Unavailable(hintStandby)},
	{anything, 500, nil, remote.Unavailable(hintInternal)},
	{anything, 501, nil, remote.Unavailable(hintInit)},
	{anything, 502, nil, remote.Unavailable(hintProxy)},
	{anything, 503, nil, remote.Unavailable(hintSealed)},
	{anything, 504, nil, remote.Unavailable(hintProxy)},
}

// notOpened is the answer that a wrap does not open.
var notOpened = remote.Answer{Means: core.ErrInvalidCiphertext}

// textNoSpace is what OpenBao says of a namespace that does not exist; newer versions say
// it without JSON around it.
const textNoSpace = "namespace not found"

// hintUnknown is the remedy for an answer that no rule knows.
const hintUnknown = "the answer is none that Vault documents; look for a proxy, or an address that is not Vault's"
