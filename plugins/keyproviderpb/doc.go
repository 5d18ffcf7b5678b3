// Package keyproviderpb is the protocol of key provider plugins in Go: the
// messages and the service of plugins/keyprovider.proto, generated. It exists as
// a package of its own so that a plugin can be written, or a test double served,
// without the host that package plugins holds. Its meaning is documented in the
// .proto file; authors of plugins in Go want plugins.Serve instead.
package keyproviderpb

//go:generate go -C .. tool -modfile=../tools/proto/go.mod buf generate
