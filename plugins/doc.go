// Package plugins keeps the SDKs of the key services out of the process that
// holds the credentials: a key provider runs as a process of its own, and this
// package is both sides of the boundary. To its caller a Host is a core.Factory,
// and what it opens an ordinary core.KeyProvider; to a provider, Serve makes a
// program of its core.Factory. It exists so that a deployment carries only the
// cloud code it uses, pinned by checksum, and so that anyone can write a provider
// for their own HSM, in any language, without a change here.
//
// The protocol is keyprovider.proto, over hashicorp/go-plugin: gRPC on a unix
// socket with mutual TLS. A process serves one key URI, so that credentials,
// memory and failures of one key are never those of another.
//
// # What is defended
//
// A program is started only if the lock file pins its SHA-256, and the bytes that
// were hashed are the bytes that run. It sees those variables of the environment
// that the lock file names, and no secret of Lockwood's is ever among them. Package
// isolation keeps it from the memory, the files and the processes of its host. What
// a plugin does see is every data key that passes through it; docs/plugins.md and
// the threat model say what follows.
//
// # What happens when a plugin fails
//
// The service goes on. A process that dies or hangs is replaced, with growing
// pauses; a call that it interrupted is made once more. A call that stays without
// an answer, or gets one that cannot be, fails as core.ErrUnavailable. Mistakes
// of configuration, a program that is not pinned among them, are errors of
// Host.Open and say what to do.
package plugins
