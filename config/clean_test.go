package config_test

import (
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/config"
)

// What surrounds a value that names something is one error, which says so and
// repeats nothing.
func TestSurroundedValues(t *testing.T) {
	parts := []string{"DATABASE_HOST=h", "DATABASE_NAME=d", "DATABASE_USER=u", "DATABASE_PORT=1"}
	values := map[string][]string{
		"DATABASE_URL=postgres://u:hunter2@h/d": nil, "DATABASE_URL=sqlite:hunter2.db": nil,
		"DATABASE_HOST=hunter2": parts, "DATABASE_NAME=hunter2": parts, "DATABASE_USER=hunter2": parts, "DATABASE_PORT=5432": parts,
		"DATABASE_SCHEMA=hunter2": nil, "HTTP_HOST=127.0.0.1": nil, "HTTP_PORT=3400": nil, "ADMIN_ADDR=hunter2:1": nil, "LOG_LEVEL=debug": nil,
		"FOREST_EXECUTOR_ENCRYPTION_KEY_FILE=/hunter2": nil, "FOREST_EXECUTOR_PLUGIN_DIR=/hunter2": nil,
		"FOREST_EXECUTOR_KEY_PROVIDER=awskms:///hunter2": nil, "FOREST_EXECUTOR_AUTO_REWRAP=false": nil, "DRAIN_GRACE=1s": nil,
	}
	around := map[string]string{
		"%\n": "white space", " %": "white space", "%\r": "white space", "\t%": "white space", "\ufeff%": "white space", "%\u00a0": "white space", "%\u200b": "white space",
		`"%"`: "quotation marks", "'%'": "quotation marks", `"%`: "quotation marks", "“%”": "quotation marks",
	}
	for assignment, environ := range values {
		name, value, _ := strings.Cut(assignment, "=")
		for form, want := range around {
			_, err := load(t, append(environ, name+"="+strings.Replace(form, "%", value, 1))...)
			if err == nil || !strings.HasPrefix(err.Error(), name+": has "+want) || strings.Count(err.Error(), "\n") > 0 || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s as %q: %v", assignment, form, err)
			}
		}
	}
	_, err := load(t, "DATABASE_URL_FILE="+keep(t, "sqlite:hunter2.db\r\n"))
	if err == nil || !strings.HasPrefix(err.Error(), "DATABASE_URL_FILE: has white space") {
		t.Errorf("a file with \\r\\n: %v", err)
	}
	for _, name := range []string{"FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS", "TRUSTED_PROXIES"} {
		if _, err := load(t, name+`="10.0.0.1, 10.0.0.2"`); err == nil || !strings.HasPrefix(err.Error(), name+": has quotation marks") {
			t.Errorf("%s in quotation marks: %v", name, err)
		}
	}
}

// Inside a URL it is the parts that are surrounded, and a name that an option was
// added to is another one.
func TestSurroundedPartsOfURLs(t *testing.T) {
	for url, want := range map[string]string{
		"sqlite: hunter2.db":             "DATABASE_URL: the path: has white space",
		"sqlite:'hunter2.db'":            "DATABASE_URL: the path: has quotation marks",
		"sqlite:hunter2.db?cache=shared": "takes no options",
		"sqlite:/hunter2.db?mode=memory": "takes no options",
		"sqlite::memory:?cache=shared":   "takes no options",
		"sqlite:file:hunter2.db":         "without file:",
		"sqlite:hunter2\n.db":            "control character",
		"postgres://hunter2%0A:p@h/d":    "DATABASE_URL: the user: has white space",
		"postgres://u:p@h/%22hunter2%22": "DATABASE_URL: the name of the database: has quotation marks",
		"postgres://u:p@h/hunter2%20":    "DATABASE_URL: the name of the database: has white space",
	} {
		_, err := load(t, "DATABASE_URL="+url)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v; want %q", url, err, want)
		}
	}
}

// A secret is taken as it is, and what surrounds it is told.
func TestSurroundedSecrets(t *testing.T) {
	auth := "FOREST_AUTH_SECRET=" + secret
	parts := []string{auth, "DATABASE_HOST=h", "DATABASE_NAME=d", "DATABASE_USER=u"}
	for _, tt := range []struct {
		want    string
		environ []string
	}{
		{"FOREST_AUTH_SECRET has white space", []string{"FOREST_AUTH_SECRET=" + secret + "\n"}},
		{"FOREST_AUTH_SECRET is in quotation marks", []string{"FOREST_AUTH_SECRET='" + secret + "'"}},
		{"FOREST_AUTH_SECRET has white space", []string{"FOREST_AUTH_SECRET_FILE=" + keep(t, secret+"\r\n")}},
		{"DATABASE_PASSWORD has white space", append(parts, "DATABASE_PASSWORD= p")},
		{"DATABASE_PASSWORD has white space", append(parts, "DATABASE_PASSWORD_FILE="+keep(t, "p\r\n"))},
		{"DATABASE_PASSWORD is in quotation marks", append(parts, `DATABASE_PASSWORD="p"`)},
		{"DATABASE_URL: the password has white space", []string{auth, "DATABASE_URL=postgres://u:p%0A@h/d"}},
		{"DATABASE_URL: the password is in quotation marks", []string{auth, "DATABASE_URL=postgres://u:%22p%22@h/d"}},
	} {
		c, err := config.Load(tt.environ, config.EnvFile{})
		if got := strings.Join(c.Warnings, "\n"); err != nil || len(c.Warnings) != 1 || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%q: %q, %v; want %q", tt.environ, got, err, tt.want)
		}
	}
	c, err := load(t, "DATABASE_HOST=h", "DATABASE_NAME=d", "DATABASE_USER=u", "DATABASE_PASSWORD='p'")
	if err != nil || string(c.Database.URL) != "postgres://u:%27p%27@h/d" {
		t.Errorf("the password became part of %q, %v", string(c.Database.URL), err)
	}
}
