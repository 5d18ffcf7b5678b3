package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	agelib "filippo.io/age"

	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// ageIdentity is the file of a new identity, and the variable that makes its public
// half a recovery KEK.
func ageIdentity(t *testing.T) (file, variable string) {
	t.Helper()
	identity, err := agelib.GenerateX25519Identity()
	if err != nil {
		t.Skip("FIPS 140-only mode allows no age identity, by design:", err)
	}
	file = filepath.Join(t.TempDir(), "recovery.txt")
	if err := os.WriteFile(file, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, "FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS=age://" + identity.Recipient().String()
}

// drillOf runs a drill and judges its exit code.
func drillOf(t *testing.T, env []string, want int, args ...string) (drilled, result) {
	t.Helper()
	args = append([]string{"recover", "--drill"}, args...)
	r := do(t, env, append(args, "--json")...)
	var d drilled
	if r.code == exitOK || r.code == exitFound {
		r.json(t, &d)
	}
	if r.code != want || d.OK != (want == exitOK) {
		t.Fatalf("exit code %d, want %d\n%s%s", r.code, want, r.stdout, r.stderr)
	}
	return d, do(t, env, args...)
}

// protect wraps every data key under the recovery KEKs of env.
func protect(t *testing.T, env []string) {
	t.Helper()
	if r := do(t, env, "key", "rewrap"); r.code != exitOK {
		t.Fatalf("key rewrap: %s%s", r.stdout, r.stderr)
	}
}

// The env key is a recovery KEK like any other, and a drill opens it by itself.
func TestDrillThroughTheEnvKey(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 4)
	env := append(d.env, "FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS="+envkey.URI)
	if got, _ := drillOf(t, env, exitOK); got.Opened != 4 || len(got.DataKeys) != 1 {
		t.Errorf("%+v", got)
	}
	if r := do(t, append(env, "FOREST_EXECUTOR_ENCRYPTION_KEY=weak"), "recover", "--drill"); r.code != exitUsage || !strings.Contains(r.stderr, "FOREST_EXECUTOR_ENCRYPTION_KEY") {
		t.Errorf("with a weak key: %d %s%s", r.code, r.stdout, r.stderr)
	}
}

// A recovery KEK that denies, or does not answer, keeps no other from being tried.
func TestDrillTriesEveryRecoveryKEK(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 3)
	kms, first, uri, aws := awsKey(t)
	second := kms.CreateKey("second")
	second.Alias("second")
	env := append(append(d.env, pluginsEnv(t)...), append(aws, "FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS="+
		uri+","+strings.Replace(uri, "alias/forest", "alias/second", 1))...)
	protect(t, env)
	if got, _ := drillOf(t, env, exitOK); got.DataKeys[0].Via.Key() != first.ARN() {
		t.Errorf("with both: %+v", got)
	}
	first.SetState(awstest.Disabled)
	if got, _ := drillOf(t, env, exitOK); got.Opened != 3 || got.DataKeys[0].Via.Key() != second.ARN() {
		t.Errorf("with the first disabled: %+v", got)
	}
	second.SetState(awstest.Disabled)
	got, r := drillOf(t, env, exitFound)
	if got.Opened != 0 || len(got.Failed) != 3 || got.DataKeys[0].Problem == "" || !strings.Contains(r.stdout, "Not every data key could be recovered") {
		t.Errorf("with both disabled: %+v\n%s", got, r.stdout)
	}
}

// What no recovery KEK opens is not counted as recovered.
func TestDrillCountsLegacyRecordsApart(t *testing.T) {
	t.Parallel()
	d, _ := upstreamDatabase(t)
	file, variable := ageIdentity(t)
	env := append(d.env, variable)
	got, r := drillOf(t, d.with("FOREST_AUTH_SECRET"), exitFound, "--identity", file)
	if len(got.DataKeys) != 0 || !strings.Contains(r.stdout, "There is no data key in this database") {
		t.Errorf("before the take-over: %+v\n%s", got, r.stdout)
	}
	serve(t, env).ready(t).stop(t)
	got, r = drillOf(t, env, exitFound, "--identity", file)
	if got.Legacy != 59 || got.Opened != 0 || got.LegacyRecords == 0 || len(got.Failed) != 0 || len(got.DataKeys) != 1 ||
		!strings.Contains(r.stdout, "59 credentials hold legacy records") || !strings.Contains(r.stdout, "lockwood credentials reseal first") {
		t.Errorf("after the take-over: %+v\n%s", got, r.stdout)
	}
	// One that the sample misses counts all the same.
	if got, _ := drillOf(t, env, exitFound, "--identity", file, "--sample", "1"); got.Legacy != 1 || got.LegacyRecords <= 59 {
		t.Errorf("with a sample of one: %+v", got)
	}
	if r := do(t, env, "credentials", "reseal"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	if got, _ := drillOf(t, env, exitOK, "--identity", file); got.Opened != 59 || got.Legacy != 0 || got.LegacyRecords != 0 {
		t.Errorf("after the re-seal: %+v", got)
	}
}

// A drill on a database that Lockwood never used proves nothing, and says so.
func TestDrillWithoutADataKey(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	d.exec(t, "CREATE TABLE other (id INTEGER)")
	file, _ := ageIdentity(t)
	if _, r := drillOf(t, d.env, exitFound, "--identity", file); !strings.Contains(r.stdout, "nothing was proven") {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
	if r := do(t, d.env, "recover", "--drill", "--identity", file, "--sample", "0"); r.code != exitUsage {
		t.Errorf("a sample of none: %d", r.code)
	}
}

// A record that does not open is found wherever it is, and other than a data key
// that is lost.
func TestDrillNamesWhatDoesNotOpen(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	file, variable := ageIdentity(t)
	fill(t, append(d.env, variable), 5)
	d.exec(t, "UPDATE "+d.table+" SET mcp_server_id = 'moved' WHERE mcp_server_id = 'server-4'")
	got, r := drillOf(t, d.env, exitFound, "--identity", file)
	if got.Opened != 4 || len(got.Failed) != 1 || !strings.Contains(r.stdout, "not every record opens") {
		t.Errorf("%+v\n%s", got, r.stdout)
	}
}
