package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/spelling"
	"github.com/lockwood-kms/lockwood/internal/wiring"
	"github.com/lockwood-kms/lockwood/plugins"
	agekek "github.com/lockwood-kms/lockwood/providers/age"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// keyURIs are examples of key URIs by their schemes.
var keyURIs = map[string]string{
	envkey.Scheme: envkey.URI,
	"awskms":      "awskms:///alias/NAME?region=REGION",
	"gcpkms":      "gcpkms:///projects/P/locations/L/keyRings/R/cryptoKeys/K",
	"vault":       "vault://HOST:8200/transit/keys/NAME",
}

// otherSchemes are what other programs call the schemes of keyURIs.
var otherSchemes = map[string]string{
	"aws": "awskms", "aws-kms": "awskms", "kms": "awskms",
	"gcp": "gcpkms", "gcp-kms": "gcpkms", "gcloud": "gcpkms", "cloudkms": "gcpkms", "google": "gcpkms",
	"hashivault": "vault", "hcvault": "vault", "openbao": "vault", "bao": "vault", "transit": "vault", "vault-transit": "vault",
	"env": envkey.Scheme, "local": envkey.Scheme,
}

// meant is err, of the key URI text, or the error that says which other was likely meant.
func meant(err error, text string, use wiring.Use, cfg *config.Config) error {
	uri, parseErr := core.ParseKeyURI(text)
	if parseErr != nil || uri.Scheme == envkey.Scheme || use == wiring.Recovery && uri.Scheme == agekek.Scheme {
		return err
	}
	if other := misnamed(uri, cfg); other != nil {
		return other
	}
	return err
}

// misnamed is the error for a key URI whose scheme no plugin is there for and that was
// likely meant to be another, or nil.
func misnamed(uri core.KeyURI, cfg *config.Config) error {
	dir, _, err := wiring.PluginPaths(cfg.PluginDir, cfg.PluginLock)
	if err != nil {
		return nil //nolint:nilerr // whoever opens the plugin says so
	}
	if _, err := os.Stat(filepath.Join(dir, plugins.FilePrefix+uri.Scheme)); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, known := keyURIs[uri.Scheme]; known {
		return nil
	}
	switch uri.Scheme {
	case "http", "https":
		return fmt.Errorf("%s:// names a service and not a key: want the URI of a key, such as %s, %s or %s", uri.Scheme, keyURIs["awskms"], keyURIs["gcpkms"], keyURIs["vault"])
	case agekek.Scheme:
		return errors.New("an age recipient can only recover: name it in FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS, and another key here")
	}
	likely := otherSchemes[uri.Scheme]
	if likely == "" {
		likely = spelling.Nearest(uri.Scheme, []string{"awskms", envkey.Scheme, "gcpkms", "vault"}, 2)
	}
	if likely == "" {
		return nil
	}
	return fmt.Errorf("there is no key provider %q; did you mean %s://, as in %s?", uri.Scheme, likely, keyURIs[likely])
}
