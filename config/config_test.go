package config_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/config"
)

const secret = "auth-secret-auth-secret-auth-secret"

// load loads environ with a usable auth secret and without a .env file.
func load(t *testing.T, environ ...string) (*config.Config, error) {
	t.Helper()
	return config.Load(append([]string{"FOREST_AUTH_SECRET=" + secret}, environ...), config.EnvFile{})
}

func TestDefaults(t *testing.T) {
	c, err := load(t, "HTTP_PORT=", "LOG_LEVEL=")
	if err != nil {
		t.Fatal(err)
	}
	if c.Database.Driver != config.SQLite || c.Database.Path != "lockwood.db" || c.HTTPPort != 3400 || c.AdminAddr != "127.0.0.1:3401" ||
		c.WriteLegacy || c.LegacyClosed || c.OutageBudget.Hours() != 24 || len(c.Warnings) != 0 {
		t.Errorf("the defaults are %+v", c)
	}
	if c, err := load(t, "ADMIN_ADDR="); err != nil || c.AdminAddr != "" {
		t.Errorf("an empty ADMIN_ADDR gives %q, %v; want it off", c.AdminAddr, err)
	}
}

func TestKeyBytesSurvive(t *testing.T) {
	for _, key := range []string{"\xff\xfe", " key\n", "a=b=c", "\u00e9", "key#1 $HOME"} {
		c, err := load(t, "FOREST_EXECUTOR_ENCRYPTION_KEY="+key, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+key+",\xe2\x82,")
		if err != nil {
			t.Fatal(err)
		}
		if string(c.EncryptionKey) != key || string(c.PreviousKeys[0]) != key || string(c.PreviousKeys[1]) != "\xe2\x82" {
			t.Errorf("%q became %q and %q", key, []byte(c.EncryptionKey), []byte(c.PreviousKeys[0]))
		}
	}
}

func TestDotenv(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".env")
	text := "FOREST_AUTH_SECRET=" + secret + "\nFOREST_EXECUTOR_ENCRYPTION_KEY=' from $FILE #1 '\nHTTP_PORT=1\nLOG_LEVEL=debug\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load([]string{"HTTP_PORT=2"}, config.EnvFile{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if string(c.EncryptionKey) != " from $FILE #1 " || c.HTTPPort != 2 || c.LogLevel != slog.LevelDebug {
		t.Errorf("got key %q, port %d, level %v", []byte(c.EncryptionKey), c.HTTPPort, c.LogLevel)
	}
	if err := os.WriteFile(path, []byte("FOREST_AUTH_SECRET="+secret+"\nHUNTER2 is not a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = config.Load(nil, config.EnvFile{Path: path})
	if err == nil || strings.Contains(err.Error(), "HUNTER2") {
		t.Errorf("a malformed file gives %v; want an error that does not quote it", err)
	}
}

func TestAllErrorsAtOnceWithoutValues(t *testing.T) {
	_, err := config.Load([]string{
		"DATABASE_URL=mysql://u:hunter2@h/d", "DATABASE_SCHEMA=1hunter2", "DATABASE_SSL=hunter2", "DATABASE_PREPARED_STATEMENTS=hunter2", "HTTP_PORT=hunter2", "ADMIN_ADDR=hunter2",
		"DRAIN_GRACE=hunter2", "RATE_LIMIT=hunter2", "LOG_LEVEL=hunter2", "LOG_FORMAT=hunter2", "FOREST_EXECUTOR_ALLOW_WEAK_KEY=hunter2",
		"FOREST_EXECUTOR_KEY_OUTAGE_BUDGET=hunter2", "FOREST_EXECUTOR_WRITE_FORMAT=hunter2", "FOREST_EXECUTOR_LEGACY=hunter2",
		"FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS=hunter2", "FOREST_EXECUTOR_ALLOW_UNIQUE_LOCAL_TOKEN_ENDPOINTS=hunter2",
		"FOREST_EXECUTOR_CREDENTIAL_QUOTA=hunter2", "HTTP_MAX_CONNECTIONS=hunter2", "HTTP_MAX_MEMORY=hunter2", "TRUSTED_PROXIES=hunter2",
	}, config.EnvFile{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{
		"FOREST_AUTH_SECRET", "DATABASE_URL", "DATABASE_SCHEMA", "DATABASE_SSL", "DATABASE_PREPARED_STATEMENTS", "HTTP_PORT", "ADMIN_ADDR", "DRAIN_GRACE", "RATE_LIMIT", "LOG_LEVEL", "LOG_FORMAT",
		"FOREST_EXECUTOR_ALLOW_WEAK_KEY", "FOREST_EXECUTOR_KEY_OUTAGE_BUDGET", "FOREST_EXECUTOR_WRITE_FORMAT", "FOREST_EXECUTOR_LEGACY", "FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS",
		"FOREST_EXECUTOR_ALLOW_UNIQUE_LOCAL_TOKEN_ENDPOINTS",
		"FOREST_EXECUTOR_CREDENTIAL_QUOTA", "HTTP_MAX_CONNECTIONS", "HTTP_MAX_MEMORY", "TRUSTED_PROXIES",
	} {
		if !strings.Contains(err.Error(), name+":") {
			t.Errorf("the error does not name %s", name)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error holds a value:\n%v", err)
	}
}

func TestContradictions(t *testing.T) {
	for _, environ := range [][]string{
		{"FOREST_EXECUTOR_WRITE_FORMAT=legacy"},
		{"FOREST_EXECUTOR_WRITE_FORMAT=legacy", "FOREST_EXECUTOR_LEGACY=closed", "FOREST_EXECUTOR_ENCRYPTION_KEY=k"},
		{"DATABASE_URL=sqlite:x.db", "DATABASE_HOST=h"},
		{"DATABASE_HOST=h"},
		{"DATABASE_URL=sqlite:"},
		{"DATABASE_URL=sqlite://host/x"},
		{"DATABASE_URL=postgres://u:p#x@h/d"},
		{"DATABASE_URL=postgres://h/d#x"},
		{"DATABASE_URL=postgres:h/d"},
		{"DATABASE_URL=postgres://h/d", "DATABASE_SSL_CA=/no/such/file"},
	} {
		if _, err := load(t, environ...); err == nil {
			t.Errorf("%v is accepted", environ)
		}
	}
}

func TestDatabase(t *testing.T) {
	tests := map[string]struct {
		environ []string
		want    config.Database
	}{
		"file":       {[]string{"DATABASE_URL=sqlite:/var/lib/x.db"}, config.Database{Driver: config.SQLite, Path: "/var/lib/x.db"}},
		"three /":    {[]string{"DATABASE_URL=sqlite:///var/lib/x.db"}, config.Database{Driver: config.SQLite, Path: "/var/lib/x.db"}},
		"memory":     {[]string{"DATABASE_URL=sqlite::memory:"}, config.Database{Driver: config.SQLite, Memory: true}},
		"url":        {[]string{"DATABASE_URL=postgres://u:p@h/d?sslmode=disable"}, config.Database{Driver: config.Postgres, URL: "postgres://u:p@h/d?sslmode=disable"}},
		"two hosts":  {[]string{"DATABASE_URL=postgresql://u:p@a:1,b:2/d"}, config.Database{Driver: config.Postgres, URL: "postgresql://u:p@a:1,b:2/d"}},
		"parts":      {[]string{"DATABASE_HOST=h", "DATABASE_PORT=6543", "DATABASE_NAME=d", "DATABASE_USER=u@x", "DATABASE_PASSWORD=p/@:#%"}, config.Database{Driver: config.Postgres, URL: "postgres://u%40x:p%2F%40%3A%23%25@h:6543/d"}},
		"IPv6":       {[]string{"DATABASE_HOST=::1", "DATABASE_NAME=d", "DATABASE_USER=u"}, config.Database{Driver: config.Postgres, URL: "postgres://u@[::1]/d"}},
		"socket":     {[]string{"DATABASE_HOST=/run/postgresql", "DATABASE_NAME=d", "DATABASE_USER=u"}, config.Database{Driver: config.Postgres, URL: "postgres://u@/d?host=%2Frun%2Fpostgresql"}},
		"own schema": {[]string{"DATABASE_URL=postgres://h/d", "DATABASE_SCHEMA=Vault$1", "DATABASE_SSL=false"}, config.Database{Driver: config.Postgres, URL: "postgres://h/d", Schema: "Vault$1", SSL: "false"}},
		"unprepared": {[]string{"DATABASE_URL=postgres://h/d", "DATABASE_PREPARED_STATEMENTS=false"}, config.Database{Driver: config.Postgres, URL: "postgres://h/d", PreparedStatements: "false"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, test.environ...)
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			if want.Schema == "" {
				want.Schema, want.SSL = "forest", "true"
			}
			want.PreparedStatements = cmp.Or(want.PreparedStatements, "auto")
			if c.Database != want {
				t.Errorf("got %q with URL %q, want %q", fmt.Sprint(c.Database), string(c.Database.URL), string(want.URL))
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for variable, want := range map[string]string{
		"FOREST_AUTH_SECRET=fourteen bytes":        "shorter than 32 bytes",
		"FOREST_AUTH_SECRET=" + secret + "\n":      "white space",
		"FOREST_EXECUTOR_NO_SUCH_THING=x":          "nothing in this version reads it",
		"FOREST_SERVER_URL=x":                      "",
		"DATABASE_SCHEMA=1-of-sqlite":              "",
		"FOREST_EXECUTOR_ENCRYPTON_KEY=x":          "did you mean FOREST_EXECUTOR_ENCRYPTION_KEY?",
		"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEY=": "",
		"FOREST_ENV_SECRET=x":                      "",
		"DATABASE_URL=sqlite::memory:":             "keeps nothing",
		"DATABASE_URL=":                            "DATABASE_URL is set and empty, so the embedded database lockwood.db is used",
		"DATABASE_URL_FILE=":                       "DATABASE_URL_FILE is set and empty",
		"DATABASE_HOST=":                           "DATABASE_HOST is set and empty",
		"DATABASE_PASSWORD=":                       "",
	} {
		c, _ := load(t, variable)
		if got := strings.Join(c.Warnings, "\n"); !strings.Contains(got, want) || (want == "" && got != "") {
			t.Errorf("%s: warnings are %q, want %q", variable, got, want)
		}
	}
}

func TestAConfigShowsNoSecret(t *testing.T) {
	c, err := load(t, "FOREST_EXECUTOR_ENCRYPTION_KEY=hunter2", "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS=hunter2", "DATABASE_URL=postgres://u:hunter2@h/d")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, _ := json.Marshal(c)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c)
	for _, shown := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", *c), fmt.Sprintf("%#v", c), string(asJSON), log.String()} {
		if strings.Contains(shown, "hunter2") || strings.Contains(shown, secret) {
			t.Errorf("a secret shows: %s", shown)
		}
	}
}

func TestHashSaysWhatInstancesShare(t *testing.T) {
	hash := func(environ ...string) string {
		c, err := load(t, environ...)
		if err != nil {
			t.Fatal(err)
		}
		return c.Hash()
	}
	base := hash()
	for _, same := range []string{"HTTP_PORT=1", "FOREST_EXECUTOR_ENCRYPTION_KEY=k", "LOG_LEVEL=debug", "FOREST_AUTH_SECRET=another-secret-another-secret-123"} {
		if hash(same) != base {
			t.Errorf("%s changes the hash", same)
		}
	}
	for _, other := range []string{"FOREST_EXECUTOR_LEGACY=closed", "FOREST_EXECUTOR_KEY_OUTAGE_BUDGET=1h", "RATE_LIMIT=1", "FOREST_EXECUTOR_CREDENTIAL_QUOTA=1", "FOREST_EXECUTOR_ALLOW_UNIQUE_LOCAL_TOKEN_ENDPOINTS=true"} {
		if hash(other) == base {
			t.Errorf("%s does not change the hash", other)
		}
	}
}

func TestUniqueLocalTokenEndpoints(t *testing.T) {
	for value, want := range map[string]bool{"": false, "false": false, "true": true} {
		c, err := load(t, "FOREST_EXECUTOR_ALLOW_UNIQUE_LOCAL_TOKEN_ENDPOINTS="+value)
		if err != nil || c.AllowUniqueLocalTokenEndpoints != want || c.AllowLocalTokenEndpoints {
			t.Errorf("%q: %v, %v; want %v", value, c.AllowUniqueLocalTokenEndpoints, err, want)
		}
	}
}

func TestTheExampleExplainsEveryVariable(t *testing.T) {
	text, err := os.ReadFile("../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, m := range regexp.MustCompile(`(?m)^#?([A-Z_]+)=`).FindAllStringSubmatch(string(text), -1) {
		explained = append(explained, m[1])
	}
	known := config.Variables()
	slices.Sort(explained)
	slices.Sort(known)
	if !slices.Equal(explained, known) {
		t.Errorf(".env.example has %v,\nLockwood reads %v", explained, known)
	}
}

func TestDataKeyMaxAge(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 90 * 24 * time.Hour, "0": 0, "0s": 0, "1h": time.Hour, "60m": time.Hour, "1d": 24 * time.Hour,
	} {
		if c, err := load(t, "FOREST_EXECUTOR_DATA_KEY_MAX_AGE="+value); err != nil || c.DataKeyMaxAge != want {
			t.Errorf("%q: %s, %v; want %s", value, c.DataKeyMaxAge, err, want)
		}
	}
	for _, value := range []string{"1ns", "59m59s", "-1h", "off"} {
		_, err := load(t, "FOREST_EXECUTOR_DATA_KEY_MAX_AGE="+value)
		if err == nil || strings.Count(err.Error(), "FOREST_EXECUTOR_DATA_KEY_MAX_AGE: want") != 1 {
			t.Errorf("%q: %v; want one error", value, err)
		}
	}
	_, err := load(t, "FOREST_EXECUTOR_DATA_KEY_MAX_AGE=5m")
	if err == nil || !strings.Contains(err.Error(), "1h or more, such as 90d, or 0 for never") {
		t.Errorf("five minutes: %v; want a remedy", err)
	}
}

func TestPreviousKeyProviders(t *testing.T) {
	for value, want := range map[string][]string{
		"":                                     nil,
		"awskms:///alias/a":                    {"awskms:///alias/a"},
		"awskms:///alias/a,vault://h/t/keys/k": {"awskms:///alias/a", "vault://h/t/keys/k"},
		" awskms:///alias/a ,\n vault://h/t/keys/k?role=a%2Cb\n": {"awskms:///alias/a", "vault://h/t/keys/k?role=a%2Cb"},
	} {
		c, err := load(t, "FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS="+value)
		if err != nil || !slices.Equal(c.PreviousKeyProviders, want) {
			t.Errorf("%q: %q, %v; want %q", value, c.PreviousKeyProviders, err, want)
		}
	}
}

func TestTrustedProxies(t *testing.T) {
	environ := []string{"FOREST_AUTH_SECRET=" + strings.Repeat("s", 32), "TRUSTED_PROXIES=10.1.2.3/8, 192.0.2.7,2001:db8::1/32 ::ffff:172.16.0.1/108,::ffff:192.0.2.8"}
	c, err := config.Load(environ, config.EnvFile{})
	if err != nil {
		t.Fatal(err)
	}
	const want = "[10.0.0.0/8 192.0.2.7/32 2001:db8::/32 172.16.0.0/12 192.0.2.8/32]"
	if got := fmt.Sprint(c.TrustedProxies); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Bounds are told once, and a value of another type without them.
func TestNumbersOutOfBounds(t *testing.T) {
	for assignment, want := range map[string]string{
		"HTTP_MAX_CONNECTIONS=9": "want a whole number from 10 to 1000000", "HTTP_MAX_MEMORY=15": "want a whole number from 16 to 1048576",
		"HTTP_MAX_MEMORY=64MiB": "want a whole number of MiB", "HTTP_PORT=65536": "want a port number", "DATABASE_PORT=65536": "want a port number",
		"RATE_LIMIT=-1": "want requests a second", "RATE_LIMIT=NaN": "want requests a second", "FOREST_EXECUTOR_CREDENTIAL_QUOTA=-1": "want a whole number from 0",
		"DRAIN_GRACE=-1s": "want a duration", "FOREST_EXECUTOR_KEY_OUTAGE_BUDGET=24": "want a duration", "FOREST_EXECUTOR_AUTO_REWRAP=yes": "want true or false",
	} {
		name, _, _ := strings.Cut(assignment, "=")
		if _, err := load(t, assignment); err == nil || !strings.HasPrefix(err.Error(), name+": "+want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want %q", assignment, err, want)
		}
	}
}
