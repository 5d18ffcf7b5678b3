package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/config"
)

// keep writes text to a file that only its owner can read.
func keep(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "hunter2")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecretsFromFiles(t *testing.T) {
	for _, end := range []string{"", "\n", "\n\n"} {
		c, err := config.Load([]string{
			"FOREST_AUTH_SECRET_FILE=" + keep(t, secret+end), "DATABASE_URL_FILE=" + keep(t, "postgres://u:p@h/d"+end),
		}, config.EnvFile{})
		if err != nil || string(c.AuthSecret) != secret || string(c.Database.URL) != "postgres://u:p@h/d" || len(c.Warnings) != 0 {
			t.Errorf("%q at the end: %v, %q", end, err, c.Warnings)
		}
	}
	c, err := load(t, "DATABASE_HOST=h", "DATABASE_NAME=d", "DATABASE_USER=u", "DATABASE_PASSWORD_FILE="+keep(t, "p/ w\n"))
	if want := "postgres://u:p%2F%20w@h/d"; err != nil || string(c.Database.URL) != want {
		t.Errorf("%q, %v; want %q", string(c.Database.URL), err, want)
	}
}

// A file that cannot be used is one error, which says why and repeats neither the
// path, which may be the secret itself, nor the content.
func TestSecretFilesThatCannotBeUsed(t *testing.T) {
	closed := keep(t, "hunter2")
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		filepath.Join(t.TempDir(), "hunter2"):    "does not exist",
		t.TempDir():                              "directory",
		os.DevNull:                               "regular file",
		keep(t, ""):                              "is empty",
		keep(t, "\n\n"):                          "is empty",
		keep(t, "\xff\xfeh\x00u\x00n\x00t\x00"):  "UTF-16",
		keep(t, strings.Repeat("hunter2", 1e4)):  "larger than 64 KiB",
		filepath.Join(keep(t, "hunter2"), "key"): "cannot be read",
	}
	if os.Geteuid() != 0 {
		files[closed] = "may not read"
	}
	others := map[string][]string{
		"FOREST_AUTH_SECRET_FILE": nil,
		"DATABASE_URL_FILE":       {"FOREST_AUTH_SECRET=" + secret},
		"DATABASE_PASSWORD_FILE":  {"FOREST_AUTH_SECRET=" + secret, "DATABASE_HOST=h", "DATABASE_NAME=d", "DATABASE_USER=u"},
	}
	for path, want := range files {
		for name, environ := range others {
			_, err := config.Load(append(environ, name+"="+path), config.EnvFile{})
			if err == nil || !strings.HasPrefix(err.Error(), name+": ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s=%s: %v; want %q", name, path, err, want)
			}
		}
	}
}

func TestAVariableAndItsFile(t *testing.T) {
	for _, name := range []string{"FOREST_AUTH_SECRET", "DATABASE_URL", "DATABASE_PASSWORD"} {
		_, err := load(t, "DATABASE_URL=sqlite:x", name+"=x", name+"_FILE="+keep(t, "hunter2"))
		if err == nil || !strings.Contains(err.Error(), name+" and "+name+"_FILE are both set; unset one") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := load(t, "DATABASE_URL_FILE="+keep(t, "sqlite:x"), "DATABASE_HOST=h")
	if err == nil || !strings.Contains(err.Error(), "either the URL or the parts") {
		t.Errorf("a file with the URL, and parts: %v", err)
	}
}

// A key where its path belongs is refused without being repeated, also by what reads
// the file.
func TestAKeyInThePlaceOfItsPath(t *testing.T) {
	const key = "7d0c5e1b9a48f36217ce84d0b5a96f3e2c71e8094d5fba6318e7c20a9d46f53b"
	for _, name := range []string{"FOREST_EXECUTOR_ENCRYPTION_KEY", "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS"} {
		for _, value := range []string{key, "kZ3vQm8sT1xWb6Ya0RfEo9LhUj4DnCp7GiVtXw2HqMs="} {
			c, err := load(t, name+"_FILE="+value)
			if err == nil || !strings.HasPrefix(err.Error(), name+"_FILE: holds what looks like a key") || strings.Contains(err.Error(), value) || c.EncryptionKeyFile+c.PreviousKeysFile != "" {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, path := range []string{"/run/secrets/" + key, "keys/" + key + ".txt", "key"} {
			if _, err := load(t, name+"_FILE="+path); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}
