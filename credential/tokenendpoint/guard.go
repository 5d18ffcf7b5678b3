package tokenendpoint

import (
	"crypto/sha256"

	lru "github.com/hashicorp/golang-lru/v2"
)

// acceptedEndpoints is how many endpoints a Guard remembers: some 100 bytes each.
// A deployment has as many as it has identity providers.
const acceptedEndpoints = 1024

// Guard is Check with a memory: to read a URL by the WHATWG rules takes several
// microseconds, and the same few endpoints are deposited again and again. It keeps
// hashes of what it accepted, and is safe for concurrent use.
type Guard struct {
	opts     Options
	accepted *lru.Cache[[sha256.Size]byte, struct{}]
}

// NewGuard returns a guard that judges by opts and remembers nothing yet.
func NewGuard(opts Options) *Guard {
	accepted, _ := lru.New[[sha256.Size]byte, struct{}](acceptedEndpoints) // fails for sizes below 1
	return &Guard{opts: opts, accepted: accepted}
}

// Check judges a token endpoint and returns what the function Check does.
func (g *Guard) Check(raw string) error {
	hash := sha256.Sum256([]byte(raw))
	if _, ok := g.accepted.Get(hash); ok {
		return nil
	}
	if err := Check(raw, g.opts); err != nil {
		return err
	}
	g.accepted.Add(hash, struct{}{})
	return nil
}
