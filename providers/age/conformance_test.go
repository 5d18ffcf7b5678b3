package age_test

import (
	"context"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
)

func TestConformance(t *testing.T) {
	skipUnderFIPS(t)
	for name, generate := range map[string]func() string{
		"X25519":       func() string { return newX25519(t).String() },
		"post-quantum": func() string { return newHybrid(t).String() },
	} {
		t.Run(name, func(t *testing.T) {
			own, other := generate(), generate()
			providertest.Run(t, func(t *testing.T) *providertest.Subject {
				return &providertest.Subject{
					Provider: mustIdentity(t, own).Provider(),
					Foreign:  mustIdentity(t, other).Provider(),
					Restart: func(context.Context) (core.KeyProvider, error) {
						return mustIdentity(t, own).Provider(), nil
					},
					Lacks: map[providertest.Hook]string{
						providertest.HookDeny:        "nobody is asked who could refuse",
						providertest.HookUnavailable: "nobody is asked who could be away",
						providertest.HookMissing:     "a provider is made of an identity, so that it always has one",
						providertest.HookRotate:      "another recipient is another key, not a version",
						providertest.HookLenient:     "there is no service: the key is used in this process",
					},
				}
			})
		})
	}
}
