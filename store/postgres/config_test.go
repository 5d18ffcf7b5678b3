package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
)

func TestSchemaNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"": true, "forest": true, "_a$1": true, "Forest": true, strings.Repeat("a", 63): true,
		strings.Repeat("a", 64): false, "1a": false, "$a": false, "a-b": false, "a b": false, `a"b`: false, "a.b": false, "é": false, "a\n": false,
	} {
		if _, err := (Config{Schema: name}).schema(); (err == nil) != ok {
			t.Errorf("schema %q: %v, want accepted %v", name, err, ok)
		}
	}
}

// What TLS comes to, with the URL having the last word.
func TestTLSModes(t *testing.T) {
	const plain, encrypts, verifies = "plain", "encrypts", "verifies"
	for _, c := range []struct{ url, ssl, want string }{
		{"postgres://u:p@db.example.com/d", "", verifies},
		{"postgres://u:p@db.example.com/d", "true", verifies},
		{"postgres://u:p@db.example.com/d?application_name=x", "true", verifies},
		{"postgres://u:p@db.example.com/d", "no-verify", encrypts},
		{"postgres://u:p@db.example.com/d", "false", plain},
		{"postgres://u:p@db.example.com/d?sslmode=disable", "true", plain},
		{"postgres://u:p@db.example.com/d?sslmode=verify-full", "false", verifies},
		{"postgres://u:p@db.example.com/d?sslmode=require", "false", encrypts},
		{"postgres://u:p@db.example.com/d?sslmode=no-verify", "true", encrypts},
		{"host=db.example.com user=u password='p sslmode=disable'", "true", verifies},
		{"host=db.example.com user=u sslmode = 'disable'", "true", plain},
		{"postgres://u:p@/d?host=/run/postgresql", "true", plain}, // a socket
		{"postgres://u:p@db.example.com/d?ssl=true", "false", verifies},
		{"postgres://u:p@db.example.com/d?ssl=false&application_name=x", "true", plain},
		{"postgres://u:p@db.example.com/d?application_name=x&ssl=no-verify", "true", encrypts},
		{"postgres://u:p@db.example.com/d?sslmode=", "true", verifies},
		{"postgres://u:p@db.example.com/d?sslmode=&ssl=", "no-verify", encrypts},
		{"postgres://u:p@db.example.com/d?%73slmode=disable", "true", plain},
		{"host=db.example.com user=u sslmode=''", "true", verifies},
	} {
		p, err := Config{URL: core.Secret(c.url), SSL: c.ssl}.pool()
		if err != nil {
			t.Errorf("%s with %q: %v", c.url, c.ssl, err)
			continue
		}
		got := plain
		if tls := p.ConnConfig.TLSConfig; tls != nil {
			got = verifies
			if tls.InsecureSkipVerify || tls.ServerName != "db.example.com" {
				got = encrypts
			}
		}
		if got != c.want {
			t.Errorf("%s with %q: the connection %s, want %s", c.url, c.ssl, got, c.want)
		}
	}
}

func TestPoolSettings(t *testing.T) {
	const url = "postgres://u:p@db.example.com/d"
	p, err := Config{URL: url}.pool()
	if err != nil {
		t.Fatal(err)
	}
	if p.MaxConns != 16 || p.ConnConfig.ConnectTimeout != 5*time.Second ||
		p.ConnConfig.RuntimeParams["application_name"] != "lockwood" || p.ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeCacheDescribe {
		t.Errorf("the defaults are %+v", p.ConnConfig.RuntimeParams)
	}
	p, err = Config{URL: url + "?pool_max_conns=3&connect_timeout=9&application_name=other"}.pool()
	if err != nil {
		t.Fatal(err)
	}
	if p.MaxConns != 3 || p.ConnConfig.ConnectTimeout != 9*time.Second || p.ConnConfig.RuntimeParams["application_name"] != "other" {
		t.Errorf("the URL's settings are %+v", p.ConnConfig.RuntimeParams)
	}
}

// A refusal says what to do, and never repeats what may be the password.
func TestRefusedConfigurations(t *testing.T) {
	for name, c := range map[string]Config{
		"sslmode twice":        {URL: "postgres://user:hunter2@host/db?sslmode=verify-full&sslmode=disable"},
		"twice as keywords":    {URL: "host=h password=hunter2 sslmode=disable sslmode=verify-full"},
		"sslmode and ssl":      {URL: "postgres://user:hunter2@host/db?sslmode=verify-full&ssl=true"},
		"an unknown ssl":       {URL: "postgres://user:hunter2@host/db?ssl=hunter2"},
		"a host that is none":  {URL: "postgres://user:hunter2@ho st:x/db"},
		"an escape that is no": {URL: "postgres://user:hunter2%zz@host/db"},
		"not a URL":            {URL: "hunter2"},
		"an unknown sslmode":   {URL: "postgres://user:hunter2@host/db?sslmode=perhaps"},
		"an unknown TLS mode":  {URL: "postgres://user:hunter2@host/db", SSL: "perhaps"},
		"a CA that is no file": {URL: "postgres://user:hunter2@host/db", SSLCA: "/does/not/exist"},
		"one connection":       {URL: "postgres://user:hunter2@host/db", MaxConns: 1},
		"one, in the URL":      {URL: "postgres://user:hunter2@host/db?pool_max_conns=1"},
		"a schema that is no":  {URL: "postgres://user:hunter2@host/db", Schema: "a;b"},
	} {
		_, err := Open(t.Context(), c)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats the password: %v", name, err)
		}
	}
}

// With more than one server, the one that takes writes is looked for, unless the URL
// says otherwise.
func TestServersThatTakeWrites(t *testing.T) {
	for url, want := range map[string]bool{
		"postgres://u:p@one/d": false, "postgres://u:p@one,two/d": true, "postgres://u:a,b@one/d": false, "postgres://one:1,two:2": true,
		"postgres:///d?host=/one,/two": true, "host=one,two dbname=d": true, "host=one password=a,b": false,
		"postgres://u:p@one,two/d?target_session_attrs=any": false, "postgres://u:p@one/d?target_session_attrs=read-write": true,
	} {
		p, err := Config{URL: core.Secret(url), SSL: "false"}.pool()
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if got := p.ConnConfig.ValidateConnect != nil; got != want {
			t.Errorf("%s: the server is asked whether it takes writes: %v, want %v", url, got, want)
		}
	}
}

// What is weaker than was asked for is found, for each host and fallback.
func TestWeakTLS(t *testing.T) {
	const one = "postgres://u:p@db.example.com/d"
	for _, c := range []struct {
		url, ssl string
		want     int
	}{
		{one, "true", 0}, {one, "no-verify", 0}, {one, "false", 0},
		{one + "?sslmode=disable", "false", 0}, {one + "?sslmode=require", "no-verify", 0},
		{one + "?sslmode=disable", "no-verify", 1}, {one + "?sslmode=prefer", "no-verify", 1}, {one + "?sslmode=allow", "no-verify", 1},
		{one + "?sslmode=require", "true", 1}, {one + "?sslmode=disable", "", 1}, {one + "?ssl=false", "true", 1}, {one + "?ssl=true", "true", 0},
		{one + "?sslmode=verify-ca", "true", 1}, // any public authority's certificate would do
		{"postgres://u:p@one,two/d?sslmode=require", "true", 2}, {"postgres:///d?host=/run/postgresql&sslmode=disable", "true", 0},
	} {
		cfg := Config{URL: core.Secret(c.url), SSL: c.ssl}
		p, err := cfg.pool()
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if got := cfg.weakTLS(p); len(got) != c.want {
			t.Errorf("%s with %q: found %v, want %d", c.url, c.ssl, got, c.want)
		}
	}
}
