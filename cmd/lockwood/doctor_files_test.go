package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
)

// Doctor warns of each file with a secret that every user can read, with path and mode.
func TestSecretFilesThatOthersCanRead(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, previous, secret, url := write("key", testKey), write("previous", otherKey), write("secret", testAuthSecret), write("url", d.url)
	env := []string{
		"FOREST_EXECUTOR_ENCRYPTION_KEY_FILE=" + key, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE=" + previous,
		"FOREST_AUTH_SECRET_FILE=" + secret, "DATABASE_URL_FILE=" + url,
	}
	serve(t, env).ready(t).stop(t)
	told := func() (details []string) {
		var findings []finding
		do(t, env, "doctor", "--json").json(t, &findings)
		for _, f := range findings {
			if f.Check == "secret file" && f.Verdict == verdictWarn {
				details = append(details, f.Detail)
			}
		}
		return details
	}
	if got := told(); len(got) != 0 {
		t.Errorf("for their owner alone: %q", got)
	}
	for path, mode := range map[string]os.FileMode{key: 0o644, previous: 0o604, secret: 0o446, url: 0o440} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	got := strings.Join(told(), "\n")
	for _, want := range []string{
		key + " (FOREST_EXECUTOR_ENCRYPTION_KEY_FILE, mode 0644)", previous + " (FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE, mode 0604)",
		secret + " (FOREST_AUTH_SECRET_FILE, mode 0446)",
	} {
		if !strings.Contains(got, want) || strings.Contains(got, url) {
			t.Errorf("%q does not tell %s", got, want)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := told(); len(got) != 0 {
		t.Errorf("in a directory that keeps others out: %q", got)
	}
}

// Key URIs and the URL of the database name files of tokens and passwords too.
func TestSecretFilesOfURIs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]*config.Config{
		"token_file":       {KeyProvider: "vault://h:8200/transit/keys/k?token_file=" + path},
		"secret_id_file":   {PreviousKeyProviders: []string{"vault://h:8200/transit/keys/k?auth=approle&secret_id_file=" + path}},
		"credentials_file": {RecoveryKeyProviders: []string{"gcpkms:///projects/p/locations/l/keyRings/r/cryptoKeys/k?credentials_file=" + path}},
		"client_key":       {KeyProvider: "vault://h:8200/transit/keys/k?client_cert=/none&client_key=" + path},
		"passfile":         {Database: config.Database{Driver: config.Postgres, URL: core.Secret("postgres://u@h/d?passfile=" + path)}},
	} {
		for mode, want := range map[os.FileMode]int{0o600: 0, 0o644: 1} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			got := checkFiles(cfg)
			if len(got) != want || want == 1 && !strings.Contains(got[0].Detail, name) {
				t.Errorf("%s, mode %04o: %+v", name, mode, got)
			}
		}
	}
}
