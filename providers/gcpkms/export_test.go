package gcpkms

import "context"

// Mix adds the service's random bytes to b.
func Mix(ctx context.Context, p *Provider, b []byte) error { return p.service.addRandomness(ctx, b) }
