// Package vault is the key provider whose KEK is a key of the transit engine of
// HashiCorp Vault or OpenBao. The KEK never leaves the server: data keys are
// wrapped and unwrapped there, bound to their aad as associated_data. It exists so
// that an operator decides with Vault's policies who may open the store, sees every
// use in its audit log, and can withdraw the right at once.
//
// The key material of a data key comes from the server's random generator, mixed
// with this machine's by XOR: it is as good as the better of the two, and neither a
// weak generator here nor an answer that somebody between replays can determine it.
// Then it is wrapped by encrypt; the engine's datakey endpoint would save a call,
// but its wraps cannot carry aad.
//
// Versions of the server before 1.13 ignore associated_data without saying so. Such
// a wrap would open for any row of any store, so the provider finds out before it
// relies on it (binding.go), and refuses.
//
// The address, the namespace, the mount and the name are all part of the key's name
// in a KEK ID, so that two servers are never taken for one. The version is the one
// in the ciphertext's own prefix.
//
// Credentials come from the files that the key URI names, read again at every
// login. The VAULT_ variables mean nothing here: they could name only one server.
// No error repeats a text of the server, which may quote a request.
// docs/providers/vault.md says how to make the key, what to permit, and what every
// error means.
package vault
