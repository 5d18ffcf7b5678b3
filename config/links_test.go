package config_test

import (
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/config"
)

// Kubernetes sets variables for each service of the namespace. Those that are named
// like ours are ignored, and told; the rest is nobody's mistake.
func TestServiceLinks(t *testing.T) {
	c, err := load(t, "DATABASE_URL=postgres://u:p@h/d",
		"DATABASE_PORT=tcp://10.96.0.7:5432", "DATABASE_HOST=tcp://10.96.0.7:5432", "ADMIN_ADDR=tcp://[fd00::1]:80", "HTTP_PORT=udp://10.96.0.8:80",
		"DATABASE_SERVICE_HOST=10.96.0.7", "DATABASE_SERVICE_PORT=5432", "DATABASE_PORT_5432_TCP=tcp://10.96.0.7:5432", "DATABASE_PORT_5432_TCP_ADDR=10.96.0.7",
		"FOREST_EXECUTOR_PORT=tcp://10.96.0.9:3400", "FOREST_EXECUTOR_SERVICE_HOST=10.96.0.9", "FOREST_EXECUTOR_SERVICE_PORT_HTTP=3400",
		"FOREST_EXECUTOR_PORT_3400_TCP_PROTO=tcp")
	if err != nil {
		t.Fatal(err)
	}
	if c.Database.Driver != config.Postgres || c.HTTPPort != 3400 || c.AdminAddr != "127.0.0.1:3401" {
		t.Errorf("%+v", c)
	}
	if len(c.Warnings) != 4 {
		t.Errorf("%d warnings:\n%s", len(c.Warnings), strings.Join(c.Warnings, "\n"))
	}
	for _, w := range c.Warnings {
		if !strings.Contains(w, "service link") || !strings.Contains(w, "enableServiceLinks: false") || strings.Contains(w, "10.96") {
			t.Error(w)
		}
	}
	if c, err := load(t, "DATABASE_PORT=tcp://10.96.0.7:5432"); err != nil || c.Database.Driver != config.SQLite {
		t.Errorf("a link alone: %s, %v", c.Database.Driver, err)
	}
}

// A value of that form is an error where to ignore it could expose something, or
// choose another database.
func TestWhatIsNoServiceLink(t *testing.T) {
	for name, environ := range map[string][]string{
		"DATABASE_URL":                 {"DATABASE_URL=tcp://10.96.0.7:5432"},
		"FOREST_EXECUTOR_KEY_PROVIDER": nil,
		"DATABASE_HOST":                {"DATABASE_HOST=tcp://10.96.0.7:5432", "DATABASE_NAME=d", "DATABASE_USER=u"},
		"DATABASE_PORT":                {"DATABASE_HOST=h", "DATABASE_NAME=d", "DATABASE_USER=u", "DATABASE_PORT=http://10.96.0.7:5432"},
	} {
		if environ == nil {
			c, err := load(t, name+"=tcp://10.96.0.7:5432")
			if err != nil || c.KeyProvider != "tcp://10.96.0.7:5432" {
				t.Errorf("%s: %q, %v", name, c.KeyProvider, err)
			}
			continue
		}
		if _, err := load(t, environ...); err == nil || !strings.HasPrefix(err.Error(), name+":") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
