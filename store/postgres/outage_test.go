package postgres_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// A store is opened while its database is down, says so, and serves as soon as
// the database does, through a stop, a crash and the end of its connections.
func TestOutages(t *testing.T) {
	cluster := pgtest.Start(t, nil)
	url := cluster.NewDatabase(t)
	cluster.Stop(t)
	s := open(t, postgres.Config{URL: core.Secret(url)})
	ctx := t.Context()
	unavailable := func(what string) {
		t.Helper()
		if err := s.Ping(ctx); !errors.Is(err, core.ErrStoreUnavailable) {
			t.Errorf("%s: Ping: %v, want core.ErrStoreUnavailable", what, err)
		}
		if _, err := s.LoadRing(ctx); !errors.Is(err, core.ErrStoreUnavailable) {
			t.Errorf("%s: LoadRing: %v, want core.ErrStoreUnavailable", what, err)
		}
	}
	unavailable("before the first start")
	if err := s.Migrate(ctx, store.MigrateOptions{}); !errors.Is(err, core.ErrStoreUnavailable) {
		t.Errorf("Migrate: %v, want core.ErrStoreUnavailable", err)
	}

	cluster.Start(t)
	if err := s.Migrate(ctx, store.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	key := newKey()
	if err := s.InsertDataKey(ctx, key); err != nil {
		t.Fatal(err)
	}
	for i, interrupt := range []func(){
		func() { cluster.Stop(t); unavailable("stopped"); cluster.Start(t) },
		func() { cluster.Kill(t); unavailable("killed"); cluster.Start(t) },
	} {
		server := fmt.Sprint("server", i)
		if err := s.Upsert(ctx, sealedRow(key.ID, server), key.ID, 0); err != nil {
			t.Fatal(err)
		}
		interrupt()
		pgtest.Eventually(t, "the store recovers by itself", func() bool { return s.Ping(ctx) == nil })
		if _, err := s.Get(ctx, 1, server); err != nil {
			t.Errorf("what was written before is not there: %v", err)
		}
	}

	pgtest.Exec(t, url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lockwood'")
	pgtest.Eventually(t, "the store gets over ended connections", func() bool {
		_, err := s.Get(ctx, 1, "server0")
		if err != nil && !errors.Is(err, core.ErrStoreUnavailable) {
			t.Fatalf("an ended connection is %v, want core.ErrStoreUnavailable", err)
		}
		return err == nil
	})
}

func TestLimitsOfTheServerAreOutages(t *testing.T) {
	cluster := pgtest.Start(t, &pgtest.Options{NoSync: true, Settings: map[string]string{
		"max_connections": "5", "superuser_reserved_connections": "3", "max_wal_senders": "0",
	}})
	url := cluster.NewDatabase(t)
	pgtest.Exec(t, url, "CREATE ROLE service LOGIN")
	_, rest, _ := strings.Cut(url, "@")
	service := "postgres://service@" + rest
	for range 2 { // what is left by connections that have just closed is free a moment later
		pgtest.Eventually(t, "a free connection slot", func() bool {
			conn, err := pgx.Connect(t.Context(), service)
			if err == nil {
				t.Cleanup(func() { _ = conn.Close(context.Background()) })
			}
			return err == nil
		})
	}
	s := open(t, postgres.Config{URL: core.Secret(service)})
	if err := s.Ping(t.Context()); !errors.Is(err, core.ErrStoreUnavailable) {
		t.Errorf("too many connections: %v, want core.ErrStoreUnavailable", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if err := s.Ping(ctx); !errors.Is(err, core.ErrStoreUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past the deadline: %v, want core.ErrStoreUnavailable and the deadline", err)
	}
}

// The server's certificate is verified unless the operator says not to; a
// password is checked, in the way that a FIPS build allows, and never told.
func TestTLSAndPasswords(t *testing.T) {
	certificate, key := selfSigned(t, "localhost")
	other, _ := selfSigned(t, "localhost")
	cluster := pgtest.Start(t, &pgtest.Options{
		NoSync: true, TCP: true, Certificate: certificate, Key: key,
		HBA: "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
	})
	pgtest.Exec(t, cluster.NewDatabase(t), "CREATE ROLE service LOGIN PASSWORD 'a long password: hunter2'")
	url := func(host, password, query string) core.Secret {
		return core.Secret(fmt.Sprintf("postgres://service:%s@%s:%d/postgres?%s", password, host, cluster.Port(), query))
	}
	const right = "a%20long%20password%3A%20hunter2"
	ca, wrongCA := file(t, certificate), file(t, other)
	for _, c := range []struct {
		name string
		cfg  postgres.Config
		ok   bool
	}{
		{"verified against the system's roots", postgres.Config{URL: url("localhost", right, "")}, false},
		{"verified against its CA", postgres.Config{URL: url("localhost", right, ""), SSLCA: ca}, true},
		{"verified against another CA", postgres.Config{URL: url("localhost", right, ""), SSLCA: wrongCA}, false},
		{"verified by another name", postgres.Config{URL: url("127.0.0.1", right, ""), SSLCA: ca}, false},
		{"not verified", postgres.Config{URL: url("127.0.0.1", right, ""), SSL: "no-verify"}, true},
		{"plain, which the server refuses", postgres.Config{URL: url("localhost", right, ""), SSL: "false"}, false},
		{"not verified, by the URL", postgres.Config{URL: url("localhost", right, "sslmode=require"), SSL: "true"}, true},
		{"verified, by the URL", postgres.Config{URL: url("localhost", right, "sslmode=verify-full"), SSL: "no-verify"}, false},
		{"verified by its CA alone, by the URL", postgres.Config{URL: url("127.0.0.1", right, "sslmode=verify-ca"), SSLCA: ca}, true},
		{"verified by another CA alone", postgres.Config{URL: url("127.0.0.1", right, "sslmode=verify-ca"), SSLCA: wrongCA}, false},
		{"verified by ssl=true", postgres.Config{URL: url("localhost", right, "ssl=true"), SSL: "false", SSLCA: ca}, true},
		{"ssl=true against another CA", postgres.Config{URL: url("localhost", right, "ssl=true"), SSL: "false", SSLCA: wrongCA}, false},
		{"with a wrong password", postgres.Config{URL: url("localhost", "another%20hunter2%20password", ""), SSLCA: ca}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := open(t, c.cfg).Ping(t.Context())
			if (err == nil) != c.ok {
				t.Errorf("connecting: %v, want success %v", err, c.ok)
			}
			if err != nil && (!errors.Is(err, core.ErrStoreUnavailable) || strings.Contains(fmt.Sprintf("%+v %#v", err, err), "hunter2")) {
				t.Errorf("got %#v, want core.ErrStoreUnavailable without the password", err)
			}
		})
	}
}

// What keeps a connection from being made has a cause, which a remedy goes by.
func TestCauses(t *testing.T) {
	certificate, key := selfSigned(t, "localhost")
	other, _ := selfSigned(t, "localhost")
	secure := pgtest.Start(t, &pgtest.Options{
		NoSync: true, TCP: true, Certificate: certificate, Key: key,
		HBA: "local all all trust\nhostssl postgres service 127.0.0.1/32 scram-sha-256\nhostssl missing service 127.0.0.1/32 trust\nhostssl all nobody 127.0.0.1/32 trust\n",
	})
	pgtest.Exec(t, secure.URL(pgtest.Superuser, "postgres"), "CREATE ROLE service LOGIN PASSWORD 'right'")
	at := func(user, host, database string) core.Secret {
		return core.Secret(fmt.Sprintf("postgres://%s@%s:%d/%s", user, host, secure.Port(), database))
	}
	ca := file(t, certificate)
	noTLS := pgtest.Start(t, &pgtest.Options{NoSync: true, TCP: true})
	for cause, cfg := range map[store.Cause]postgres.Config{
		store.NoTLS:            {URL: core.Secret(fmt.Sprintf("postgres://postgres@localhost:%d/postgres", noTLS.Port()))},
		store.TLSRequired:      {URL: at("service:right", "localhost", "postgres"), SSL: "false"},
		store.UnknownAuthority: {URL: at("service:right", "localhost", "postgres"), SSLCA: file(t, other)},
		store.OtherName:        {URL: at("service:right", "127.0.0.1", "postgres"), SSLCA: ca},
		store.WrongPassword:    {URL: at("service:wrong", "localhost", "postgres"), SSLCA: ca},
		store.NoDatabase:       {URL: at("service", "localhost", "missing"), SSLCA: ca},
		store.NoRole:           {URL: at("nobody", "localhost", "postgres"), SSLCA: ca},
		store.Unreachable:      {URL: "postgres://u@127.0.0.1:1/d", SSL: "false"},
	} {
		if err := open(t, cfg).Ping(t.Context()); store.CauseOf(err) != cause || !errors.Is(err, core.ErrStoreUnavailable) {
			t.Errorf("%s: %v has the cause %q", cause, err, store.CauseOf(err))
		}
	}
	url := pgtest.Shared(t).NewDatabase(t)
	if err := open(t, postgres.Config{URL: core.Secret(url)}).SaveReport(t.Context(), nil); store.CauseOf(err) != store.NotMigrated {
		t.Errorf("without tables: %v has the cause %q", err, store.CauseOf(err))
	}
	s := seenBy(t, false, "REVOKE UPDATE ON forest.lockwood_store FROM :server")
	if err := s.SaveReport(t.Context(), nil); store.CauseOf(err) != store.NoRights {
		t.Errorf("without a right: %v has the cause %q", err, store.CauseOf(err))
	}
}

// The file of passwords is read for each connection, so a password can be changed
// while the store is open.
func TestPasswordsAreReadAnew(t *testing.T) {
	cluster := pgtest.Start(t, &pgtest.Options{NoSync: true, TCP: true, HBA: "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"})
	admin := cluster.URL(pgtest.Superuser, "postgres")
	pgtest.Exec(t, admin, "CREATE ROLE service LOGIN PASSWORD 'first'")
	passfile := filepath.Join(t.TempDir(), "pgpass")
	write := func(password string) {
		if err := os.WriteFile(passfile, []byte("*:*:*:service:"+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	s := open(t, postgres.Config{URL: core.Secret(fmt.Sprintf("postgres://service@127.0.0.1:%d/postgres?passfile=%s", cluster.Port(), passfile)), SSL: "false"})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, admin, "ALTER ROLE service PASSWORD 'second'")
	pgtest.Exec(t, admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'service'")
	pgtest.Eventually(t, "the old password is refused", func() bool { return store.CauseOf(s.Ping(t.Context())) == store.WrongPassword })
	write("second")
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("with the file updated: %v", err)
	}
}

// selfSigned makes a certificate that is its own CA, and its key.
func selfSigned(t *testing.T, host string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8)
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
