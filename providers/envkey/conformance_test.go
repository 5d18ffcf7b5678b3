package envkey_test

import (
	"context"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// Values that are strong, in each form that is accepted. They are made up.
const (
	hexKey   = "7d0c5e1b9a48f36217ce84d0b5a96f3e2c71e8094d5fba6318e7c20a9d46f53b"
	otherKey = "c1f7b20e93d84a56e07b3c9d15f28a64b3e1907fd25c68ea4b0937d1f6a82c5e"
	base64   = "kZ3vQm8sT1xWb6Ya0RfEo9LhUj4DnCp7GiVtXw2HqMs="
)

func mustKeys(t *testing.T, o envkey.Options) *envkey.Keys {
	t.Helper()
	k, err := envkey.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestConformance(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, value string) core.KeyProvider{
		"current": func(t *testing.T, value string) core.KeyProvider {
			return mustKeys(t, envkey.Options{Value: []byte(value)}).Provider()
		},
		"previous": func(t *testing.T, value string) core.KeyProvider {
			return mustKeys(t, envkey.Options{Previous: []core.SecretBytes{[]byte(value)}}).Previous()[0]
		},
		"file": func(t *testing.T, value string) core.KeyProvider {
			return mustKeys(t, envkey.Options{File: writeFile(t, t.TempDir(), value+"\n")}).Provider()
		},
	} {
		t.Run(name, func(t *testing.T) {
			providertest.Run(t, func(t *testing.T) *providertest.Subject {
				return &providertest.Subject{
					Provider: open(t, hexKey),
					Foreign:  open(t, otherKey),
					Restart:  func(context.Context) (core.KeyProvider, error) { return open(t, hexKey), nil },
					Lacks: map[providertest.Hook]string{
						providertest.HookDeny:        "nobody is asked who could refuse",
						providertest.HookUnavailable: "nobody is asked who could be away",
						providertest.HookMissing:     "a key that was taken up is kept until a restart; a key that is missing at first has tests of its own",
						providertest.HookRotate:      "another value is another key, not a version",
						providertest.HookLenient:     "there is no service: the key is used in this process",
					},
				}
			})
		})
	}
}
