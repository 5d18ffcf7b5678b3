package vault

import "github.com/lockwood-kms/lockwood/core"

// answer is what a refusal of the server means to the ring.
type answer struct {
	// means is the sentinel; nil stands for having to look closer.
	means error
	// remedy tells the operator what it is and what to do. {mount}, {name}, {key},
	// {auth} and {method} stand for what the key URI says.
	remedy string
}

// rule gives an answer its meaning.
type rule struct {
	on     kind // operations it applies to
	status int
	says   string // what one of the error texts contains, in lower case; "" for any
	answer
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
	{anything, 404, textNoSpace, answer{core.ErrKeyDenied, hintSpace}},
	{anything, 400, "locked by an administrator", answer{core.ErrUnavailable, hintLocked}},
	{anything, 403, "locked by an administrator", answer{core.ErrUnavailable, hintLocked}},
	{anything, 503, "locked by an administrator", answer{core.ErrUnavailable, hintLocked}},
	{anything, 503, "namespace", answer{core.ErrUnavailable, hintSpaced}},

	// The key.
	{transit, 400, "encryption key not found", answer{core.ErrKeyDenied, hintMissing}},
	{wrapping, 400, "key type " + noType, answer{core.ErrKeyDenied, hintMissing}}, // it would have been created
	{transit, 400, "soft-deleted", answer{core.ErrKeyDenied, hintSoftly}},
	{transit, 400, "soft deleted", answer{core.ErrKeyDenied, hintSoftly}},
	{transit, 400, "too old", answer{core.ErrKeyDenied, hintTooOld}},
	{transit, 400, "disallowed by policy", answer{core.ErrKeyDenied, hintTooOld}},
	{transit, 400, "no such key version", answer{core.ErrKeyDenied, hintTrimmed}},
	{transit, 400, "derivation", answer{core.ErrKeyDenied, hintDerived}},
	{transit, 400, "derived key", answer{core.ErrKeyDenied, hintDerived}},
	{transit, 400, "missing 'context'", answer{core.ErrKeyDenied, hintDerived}},
	{transit, 400, "convergent", answer{core.ErrKeyDenied, hintDerived}},
	{transit, 400, "non-aead", answer{core.ErrKeyDenied, hintType}},
	{transit, 400, "key type", answer{core.ErrKeyDenied, hintType}},
	{metadata, 404, "no handler for route", answer{core.ErrKeyDenied, hintMount}},
	{metadata, 404, "unsupported path", answer{core.ErrKeyDenied, hintMount}},
	{metadata, 404, "", answer{core.ErrKeyDenied, hintMissing}},
	{transit, 404, "", answer{core.ErrKeyDenied, hintMount}},
	{transit, 405, "", answer{core.ErrKeyDenied, hintMount}},

	// The wrap.
	{unwrapping, 400, "authentication failed", answer{core.ErrInvalidCiphertext, ""}},
	{unwrapping, 400, "invalid ciphertext", answer{core.ErrInvalidCiphertext, ""}},
	{unwrapping, 400, "unable to decrypt", answer{core.ErrInvalidCiphertext, ""}},
	{unwrapping, 400, "base64", answer{core.ErrInvalidCiphertext, ""}},
	{unwrapping, 400, "version is too new", answer{core.ErrInvalidCiphertext, ""}},
	{unwrapping, 400, "", answer{}}, // whether the key is in order decides

	// The login.
	{loggingIn, 404, "", answer{core.ErrKeyDenied, hintAuth}},
	{loggingIn, 405, "", answer{core.ErrKeyDenied, hintAuth}},
	{loggingIn, 403, "no handler for route", answer{core.ErrKeyDenied, hintAuth}},
	{loggingIn, 400, "fetching keys", answer{core.ErrUnavailable, hintIssuer}},
	{loggingIn, 400, "", answer{core.ErrKeyDenied, "{refused}"}},
	{loggingIn, 401, "", answer{core.ErrKeyDenied, "{refused}"}},
	{loggingIn, 403, "", answer{core.ErrKeyDenied, "{refused}"}},

	// The right: explained by what is missing.
	{anything, 403, "", answer{core.ErrKeyDenied, ""}},
	{asking | session, 400, "invalid token", answer{core.ErrKeyDenied, ""}},
	{asking | session, 400, "bad token", answer{core.ErrKeyDenied, ""}},

	// No answer.
	{anything, 412, "", answer{core.ErrUnavailable, hintBehind}},
	{anything, 429, "", answer{core.ErrUnavailable, hintQuota}},
	{anything, 472, "", answer{core.ErrUnavailable, hintStandby}},
	{anything, 473, "", answer{core.ErrUnavailable, hintStandby}},
	{anything, 500, "", answer{core.ErrUnavailable, hintInternal}},
	{anything, 501, "", answer{core.ErrUnavailable, hintInit}},
	{anything, 502, "", answer{core.ErrUnavailable, hintProxy}},
	{anything, 503, "", answer{core.ErrUnavailable, hintSealed}},
	{anything, 504, "", answer{core.ErrUnavailable, hintProxy}},
}

// textNoSpace is what OpenBao says of a namespace that does not exist; newer versions say
// it without JSON around it.
const textNoSpace = "namespace not found"

// hintUnknown is the remedy for an answer that no rule knows.
const hintUnknown = "the answer is none that Vault documents; look for a proxy, or an address that is not Vault's"
