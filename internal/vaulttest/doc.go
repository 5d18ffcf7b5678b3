// Package vaulttest is a Vault for tests: the real core of OpenBao, which is Vault's
// fork under its old licence and speaks the same API, as a process of its own. It
// exists because expired tokens, policies, namespaces and the seal are too much
// behaviour to imitate, and what a provider makes of them decides whether data keys
// stay in memory.
//
// The server is the nested module test/openbao. It takes minutes of a cold cache to
// build, which only a run that asks for it should cost; once built, it is kept in
// the user's cache directory. It lives in memory, listens on a free port of the
// loopback interface, and ends with the test process, however that ends.
//
// A Server is set up through its HTTP API with the root token: there is one way to
// do things, and it is the one that docs/providers/vault.md teaches.
package vaulttest
