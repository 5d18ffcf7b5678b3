package awstest

import (
	"bytes"

	"github.com/lockwood-kms/lockwood/core/providertest"
)

// Become makes the server do what AWS KMS refuses, as emulators do, until restore is
// called.
func (s *Server) Become(l providertest.Leniency) (restore func()) {
	set := func(l providertest.Leniency) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lenient = l
	}
	set(l)
	return func() { set("") }
}

// wrap is seal by a server that may be lenient.
func (k *Key) wrap(plaintext []byte, ec map[string]string) ([]byte, error) {
	k.server.wrapped = bytes.Clone(plaintext)
	switch k.server.lenient {
	case providertest.WrapsNothing:
		plaintext = nil
	case providertest.WrapsOther:
		plaintext = make([]byte, len(plaintext))
	case providertest.WrapsShort:
		blob, err := k.seal(plaintext, ec)
		return blob[:max(0, len(blob)-16)], err
	case providertest.WrapsElsewhere:
		elsewhere := *k
		elsewhere.material = &material{seed: "elsewhere"}
		return elsewhere.seal(plaintext, ec)
	case providertest.OpensMoved:
		ec = nil
	default:
	}
	return k.seal(plaintext, ec)
}

// unwrap is open by a server that may be lenient.
func (k *Key) unwrap(blob []byte, ec map[string]string) ([]byte, int, error) {
	if k.server.lenient == providertest.OpensMoved {
		ec = nil
	}
	plaintext, version, err := k.open(blob, ec)
	if err != nil && k.server.lenient == providertest.OpensAltered {
		return k.server.wrapped, k.material.current, nil
	}
	return plaintext, version, err
}
