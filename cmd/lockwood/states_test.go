package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

func TestWithoutAKeyAllButDepositsWorksUntilTheKeyFileAppears(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		file := filepath.Join(t.TempDir(), "key")
		s := serve(t, d.with("FOREST_EXECUTOR_ENCRYPTION_KEY", "FOREST_EXECUTOR_ENCRYPTION_KEY_FILE="+file)).ready(t)
		if a := s.deposit(t, 1, "s", "FAKE"); a.status != 503 || a.body != `{"code":"executor_encryption_key_missing"}` {
			t.Errorf("deposit: %d %s", a.status, a.body)
		}
		if a := s.call(t, 1, "GET", "/mcp-oauth-credentials", ""); a.status != 200 {
			t.Errorf("list: %d %s", a.status, a.body)
		}
		if a := s.call(t, 1, "DELETE", "/mcp-oauth-credentials/s", ""); a.status != 204 {
			t.Errorf("disconnect: %d %s", a.status, a.body)
		}
		if !strings.Contains(s.log.String(), `"state":"missing"`) {
			t.Error("nothing warns that no key is configured")
		}
		if err := os.WriteFile(file, []byte(testKey+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, "the key file is taken up", func() bool { return s.deposit(t, 1, "s", "FAKE").status == 200 })
	})
}

func TestTwoInstancesOneWithAnotherKey(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	first := serve(t, d.env).ready(t)
	if a := first.deposit(t, 1, "s", "FAKE"); a.status != 200 {
		t.Fatalf("deposit: %d %s", a.status, a.body)
	}
	rows := func() string {
		return fmt.Sprint(d.count(t, d.table), d.count(t, "forest.lockwood_data_keys"), d.count(t, "forest.lockwood_data_key_wraps"))
	}
	before := rows()
	second := serve(t, d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey)).ready(t)
	if a := second.deposit(t, 1, "t", "FAKE"); a.status != 503 || a.body != `{"code":"executor_encryption_key_mismatch"}` {
		t.Errorf("deposit: %d %s", a.status, a.body)
	}
	if after := rows(); after != before {
		t.Errorf("rows were %s and are %s", before, after)
	}
	pgtest.Eventually(t, "both instances are known", func() bool { return d.count(t, "forest.lockwood_instances") == 2 })
	s := status(t, d.env)
	ids := map[string]bool{}
	for _, i := range s.Instances {
		for _, id := range i.KEKIDs {
			ids[string(id)] = true
		}
	}
	for id := range ids {
		if !strings.Contains(second.log.String(), id) {
			t.Errorf("the second instance does not name %s", id)
		}
	}
	if len(ids) != 2 || len(s.Problems) == 0 {
		t.Errorf("key status does not tell the two apart: %+v", s)
	}
	if a := first.deposit(t, 1, "t", "FAKE"); a.status != 200 {
		t.Errorf("the first instance is disturbed: %d %s", a.status, a.body)
	}
}

func TestTenInstancesStartingAtOnce(t *testing.T) {
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	servers := make([]*server, 10)
	for i := range servers {
		servers[i] = serve(t, d.env)
	}
	for i, s := range servers {
		if a := s.ready(t).deposit(t, int64(i+1), "s", "FAKE"); a.status != 200 {
			t.Errorf("deposit: %d %s", a.status, a.body)
		}
	}
	if n := d.count(t, "forest.lockwood_data_keys"); n != 1 {
		t.Errorf("%d data keys, want one primary", n)
	}
	if report := verify(t, d.env, exitOK); report.OK != 10 || report.Stale != 0 {
		t.Errorf("credentials verify says %+v", report)
	}
}

func TestTheDatabaseMayGoAndComeBack(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Start(t, nil)
	d := postgresDatabase(t, cluster)
	s := serve(t, d.env).ready(t)
	if a := s.deposit(t, 1, "s", "FAKE"); a.status != 200 {
		t.Fatalf("deposit: %d %s", a.status, a.body)
	}
	cluster.Stop(t)
	late := serve(t, d.env) // one that starts while the database is down
	for _, s := range []*server{s, late} {
		pgtest.Eventually(t, "deposits are refused", func() bool {
			a := s.deposit(t, 1, "s", "FAKE")
			return a.status == 503 && a.body == `{"code":"database_unavailable"}` && a.header.Get("Retry-After") != ""
		})
		if a := s.call(t, 1, "GET", "/mcp-oauth-credentials", ""); a.status != 503 {
			t.Errorf("list: %d %s", a.status, a.body)
		}
		if a := s.call(t, 1, "GET", "/health", ""); a.status != 200 {
			t.Errorf("health: %d %s", a.status, a.body)
		}
		if code := get(t, s.admin+"/readyz"); code != 503 {
			t.Errorf("readyz: %d", code)
		}
		if code := get(t, s.admin+"/livez"); code != 200 {
			t.Errorf("livez: %d", code)
		}
	}
	if r := do(t, d.env, "key", "status"); r.code != exitUnavailable {
		t.Errorf("key status: exit code %d, want %d", r.code, exitUnavailable)
	}
	cluster.Start(t)
	for _, s := range []*server{s, late} {
		s.ready(t)
		pgtest.Eventually(t, "deposits are taken again", func() bool { return s.deposit(t, 1, "s", "FAKE").status == 200 })
	}
}

func get(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// What was answered 200 is there, whatever happens to the process.
func TestKillNineLosesNoAnsweredDeposit(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		answered := map[string]string{}
		for round := range 3 {
			s := serve(t, d.env).ready(t)
			var wg sync.WaitGroup
			var mu sync.Mutex
			var total atomic.Int32
			for worker := range 4 {
				wg.Go(func() {
					for i := 0; ; i++ {
						name := fmt.Sprintf("s-%d-%d-%d", round, worker, i)
						if s.deposit(t, 1, name, "FAKE-"+name).status != 200 {
							return
						}
						mu.Lock()
						answered[name] = "FAKE-" + name
						mu.Unlock()
						total.Add(1)
					}
				})
			}
			pgtest.Eventually(t, "deposits are flowing", func() bool { return total.Load() >= 40 })
			s.kill()
			wg.Wait()
		}
		v := openVault(t, d.env)
		for name, want := range answered {
			got, err := v.credentials.Open(t.Context(), 1, name)
			if err != nil || string(got.RefreshToken) != want {
				t.Errorf("%s, answered 200: %v", name, err)
			}
		}
	})
}

func TestDrainIsVisibleAndFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	s := serve(t, d.env).ready(t)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "health says draining", func() bool {
		a := s.call(t, 1, "GET", "/health", "")
		return a.status == 200 && strings.Contains(a.body, "draining")
	})
	if code := get(t, s.admin+"/readyz"); code != 503 {
		t.Errorf("readyz while draining: %d", code)
	}
	if a := s.deposit(t, 1, "s", "FAKE"); a.status != 200 {
		t.Errorf("deposit while draining: %d %s", a.status, a.body)
	}
	<-s.exited
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.log)
	}
	if n := d.count(t, "lockwood_instances"); n != 0 {
		t.Errorf("%d instances remain after a drain", n)
	}
}

// A deposit that waits for the database longer than usual is finished, answered and
// accounted for, though the service was told to end.
func TestSIGTERMWaitsForADepositThatWaits(t *testing.T) {
	t.Parallel() // it waits for timers
	d := postgresDatabase(t, pgtest.Shared(t))
	s := serve(t, d.with("DRAIN_GRACE=0s")).ready(t)
	lock := pgtest.Connect(t, d.url)
	if _, err := lock.Exec(t.Context(), "BEGIN; LOCK TABLE forest.ai_mcp_oauth_credentials IN EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan answer, 1)
	go func() { answered <- s.deposit(t, 1, "s", "FAKE") }()
	pgtest.Eventually(t, "the deposit to wait", func() bool {
		return d.count(t, "pg_locks WHERE NOT granted AND relation = 'forest.ai_mcp_oauth_credentials'::regclass") > 0
	})
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	pgtest.Eventually(t, "the database to be slow", func() bool { return time.Since(start) > 12*time.Second })
	if _, err := lock.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	answers(t, <-answered, 200, `{"stored":true}`)
	<-s.exited
	if !strings.Contains(s.log.String(), `"outcome":"stored"`) {
		t.Errorf("there is no audit line:\n%s", s.log)
	}
}
