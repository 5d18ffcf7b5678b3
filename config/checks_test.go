package config_test

import (
	"crypto/fips140"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/config"
)

// What the settings of TLS amount to is said once, and not where they do not apply.
func TestTLSWarnings(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const url = "DATABASE_URL=postgres://u:p@h/d"
	tests := []struct {
		environ []string
		want    string
	}{
		{[]string{url}, ""},
		{[]string{url, "DATABASE_SSL=no-verify"}, "does not verify"},
		{[]string{url + "?sslmode=verify-full", "DATABASE_SSL=no-verify"}, ""},
		{[]string{url, "DATABASE_SSL_CA=" + ca}, ""},
		{[]string{url, "DATABASE_SSL_CA=" + ca, "DATABASE_SSL=false"}, "has no effect"},
		{[]string{"DATABASE_SSL_CA=/no/such/file", "DATABASE_SSL=no-verify"}, ""}, // SQLite
	}
	for _, tt := range tests {
		c, err := load(t, tt.environ...)
		if err != nil {
			t.Errorf("%q: %v", tt.environ, err)
			continue
		}
		if got := strings.Join(c.Warnings, "\n"); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%q: warnings %q, want %q", tt.environ, got, tt.want)
		}
	}
}

// Under GODEBUG=fips140=only a short auth secret is a configuration error; package
// hmac would panic over it. Otherwise it boots, as upstream does.
func TestShortAuthSecretUnderFIPS(t *testing.T) {
	_, err := config.Load([]string{"FOREST_AUTH_SECRET=thirteen byte"}, config.EnvFile{})
	if fips140.Enforced() != (err != nil) {
		t.Errorf("enforced %t: %v", fips140.Enforced(), err)
	}
	if _, err := config.Load([]string{"FOREST_AUTH_SECRET=fourteen bytes"}, config.EnvFile{}); err != nil {
		t.Error(err)
	}
}

// Every value that .env.example suggests is one that is accepted.
func TestTheExamplesAreValid(t *testing.T) {
	text, err := os.ReadFile("../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^#?([A-Z_]+=.+)$`).FindAllStringSubmatch(string(text), -1)
	if len(lines) < 10 {
		t.Fatalf("%d examples", len(lines))
	}
	for _, line := range lines {
		if strings.HasPrefix(line[1], "DATABASE_PORT=") {
			continue // only together with the other parts
		}
		if _, err := loadFile(t, line[1]+"\n", 0o600); err != nil {
			t.Errorf("%s: %v", line[1], err)
		}
	}
}

// A drill of recovery needs the database and the recovery KEKs, and nothing that
// only a service needs.
func TestLoadForRecovery(t *testing.T) {
	c, err := config.LoadForRecovery([]string{
		"DATABASE_URL=sqlite:copy.db", "FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS=awskms:///a, awskms:///b", "FOREST_EXECUTOR_PLUGIN_DIR=/p",
		"FOREST_EXECUTOR_ENCRYPTION_KEY=k", "HTTP_PORT=none", "ADMIN_ADDR=' '", "LOG_LEVEL=info ", "FOREST_EXECUTOR_DATA_KEY_MAX_AGE=never",
	}, config.EnvFile{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Database.Path != "copy.db" || len(c.RecoveryKeyProviders) != 2 || c.PluginDir != "/p" || string(c.EncryptionKey) != "k" {
		t.Errorf("loaded %+v", c)
	}
	if _, err := config.LoadForRecovery([]string{"DATABASE_URL=mysql://h/d"}, config.EnvFile{}); err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("a database that cannot be reached: %v", err)
	}
	for _, environ := range [][]string{{"DATABASE_HOST=h", "DATABASE_NAME=d", "DATABASE_USER=u", "DATABASE_PORT=none"}, {"DATABASE_URL= sqlite:x.db"}} {
		if _, err := config.LoadForRecovery(environ, config.EnvFile{}); err == nil || !strings.HasPrefix(err.Error(), "DATABASE_") {
			t.Errorf("%q: %v", environ, err)
		}
	}
}
