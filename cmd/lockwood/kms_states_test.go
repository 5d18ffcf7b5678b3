package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
)

// kmsVault is a service whose KEK is in a KMS, on a store that the env key made:
// every data key has an older wrap under the env key, which is still set.
type kmsVault struct {
	kms *awstest.Server
	key *awstest.Key
	env []string
}

func newKMSVault(t *testing.T) *kmsVault {
	t.Helper()
	d := sqliteDatabase(t)
	s := serve(t, append(d.env, "DRAIN_GRACE=0s")).ready(t)
	if got := s.deposit(t, 1, "old", "token"); got.status != http.StatusOK {
		t.Fatalf("a deposit under the env key: %+v", got)
	}
	s.stop(t)
	kms, key, uri, env := awsKey(t)
	env = append(append(d.env, pluginsEnv(t)...), append(env, "FOREST_EXECUTOR_KEY_PROVIDER="+uri)...)
	s = serve(t, append(env, "DRAIN_GRACE=0s")).ready(t)
	s.seals(t)
	s.stop(t)
	return &kmsVault{kms, key, env}
}

// seals waits until deposits are stored.
func (s *server) seals(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, "deposits are stored", func() bool { return s.deposit(t, 1, "new", "token").status == http.StatusOK })
}

// refuses waits until deposits answer 503 with code, and sees that the rest works.
func (s *server) refuses(t *testing.T, code string, retry bool) {
	t.Helper()
	var got answer
	pgtest.Eventually(t, "deposits answer "+code, func() bool {
		got = s.deposit(t, 1, "refused", "token")
		return got.status == http.StatusServiceUnavailable && got.body == fmt.Sprintf(`{"code":%q}`, code)
	})
	if (got.header.Get("Retry-After") != "") != retry {
		t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
	}
	if list := s.call(t, 1, "GET", "/mcp-oauth-credentials", ""); list.status != http.StatusOK || !strings.Contains(list.body, `"old"`) {
		t.Errorf("listing meanwhile: %+v", list)
	}
	if gone := s.call(t, 1, "DELETE", "/mcp-oauth-credentials/none", ""); gone.status != http.StatusNoContent {
		t.Errorf("disconnecting meanwhile: %+v", gone)
	}
}

var outage = awstest.Fault{Status: http.StatusInternalServerError, Code: "KMSInternalException"}

func TestKMSStates(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(t *testing.T, v *kmsVault){
		"away at start": func(t *testing.T, v *kmsVault) {
			restore := v.kms.Fail("*", outage)
			s := serve(t, v.env).ready(t)
			s.refuses(t, "key_provider_unavailable", true)
			restore()
			s.seals(t)
		},
		"away later": func(t *testing.T, v *kmsVault) {
			s := serve(t, v.env).ready(t)
			s.seals(t)
			v.kms.Fail("*", outage)
			for range 20 {
				if got := s.deposit(t, 1, "new", "token"); got.status != http.StatusOK {
					t.Fatalf("a deposit within the outage budget: %+v", got)
				}
			}
		},
		"away for longer than the budget": func(t *testing.T, v *kmsVault) {
			s := serve(t, append(v.env, "FOREST_EXECUTOR_KEY_OUTAGE_BUDGET=1s")).ready(t)
			s.seals(t)
			restore := v.kms.Fail("*", outage)
			s.refuses(t, "key_provider_unavailable", true)
			restore()
			s.seals(t)
		},
		"permission revoked": func(t *testing.T, v *kmsVault) {
			s := serve(t, v.env).ready(t)
			s.seals(t)
			restore := v.kms.Revoke("Decrypt")
			s.refuses(t, "key_provider_denied", false) // though the env key's wrap is there
			restore()
			s.seals(t)
		},
		"key disabled": func(t *testing.T, v *kmsVault) {
			s := serve(t, v.env).ready(t)
			s.seals(t)
			restore := v.key.SetState(awstest.Disabled)
			s.refuses(t, "key_provider_denied", false)
			restore()
			s.seals(t)
		},
		"scheduled for deletion": func(t *testing.T, v *kmsVault) {
			s := serve(t, v.env).ready(t)
			s.seals(t)
			v.key.ScheduleDeletion(time.Now().Add(7 * 24 * time.Hour))
			s.refuses(t, "key_provider_denied", false)
			if got := status(t, v.env); !strings.Contains(strings.Join(got.Problems, "\n"), "deletion") {
				t.Errorf("key status does not say why: %v", got.Problems)
			}
		},
		"throttled at start": func(t *testing.T, v *kmsVault) {
			restore := v.kms.Fail("*", awstest.Fault{Status: http.StatusBadRequest, Code: "ThrottlingException"})
			s := serve(t, v.env).ready(t)
			s.refuses(t, "key_provider_unavailable", true)
			restore()
			s.seals(t)
		},
		"plugin killed": func(t *testing.T, v *kmsVault) {
			s := serve(t, v.env).ready(t)
			s.seals(t)
			first := s.plugin(t)
			if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if got := s.deposit(t, 1, "new", "token"); got.status != http.StatusOK {
					t.Fatalf("a deposit while the plugin is replaced: %+v", got)
				}
			}
			pgtest.Eventually(t, "another process takes its place", func() bool {
				now := s.children(t)
				return len(now) == 1 && now[0] != first
			})
		},
		"service killed": func(t *testing.T, v *kmsVault) {
			s := serve(t, v.env).ready(t)
			s.seals(t)
			plugin := s.plugin(t)
			s.kill()
			pgtest.Eventually(t, "the plugin ends too", func() bool { return syscall.Kill(plugin, 0) == syscall.ESRCH })
		},
		"secrets kept from the plugin": func(t *testing.T, v *kmsVault) {
			s := serve(t, v.env).ready(t)
			s.seals(t)
			environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.plugin(t)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(environ, []byte("AWS_ACCESS_KEY_ID=")) {
				t.Fatalf("this is not the plugin's environment: %q", environ)
			}
			for _, secret := range []string{"FOREST_", "DATABASE_", testKey, testAuthSecret} {
				if bytes.Contains(environ, []byte(secret)) {
					t.Errorf("the plugin's environment holds %s", secret)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a status is asked for every 30 s
			run(t, newKMSVault(t))
		})
	}
}

// plugin returns the process ID of the one plugin.
func (s *server) plugin(t *testing.T) int {
	t.Helper()
	pids := s.children(t)
	if len(pids) != 1 {
		t.Fatalf("the service has the children %v, want one", pids)
	}
	return pids[0]
}

// children returns the processes that the service started.
func (s *server) children(t *testing.T) (pids []int) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", s.cmd.Process.Pid, task.Name()))
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// A KMS is asked to make a new data key, to confirm its wrap, to refuse two forgeries and
// to verify what was stored; once for a data key that is loaded, and never for a record.
func TestRecordsCostTheKMSNothing(t *testing.T) {
	t.Parallel()
	kms, _, uri, aws := awsKey(t)
	env := sqliteDatabase(t).with("FOREST_EXECUTOR_ENCRYPTION_KEY")
	env = append(append(env, pluginsEnv(t)...), append(aws, "FOREST_EXECUTOR_KEY_PROVIDER="+uri)...)
	for _, want := range []map[string]int{{"GenerateDataKey": 1, "Decrypt": 1 + 2 + 1}, {"Decrypt": 1}} {
		before := kms.Calls()
		s := serve(t, env).ready(t)
		s.seals(t)
		s.depositMany(t, many())
		s.kill()
		after := kms.Calls()
		for _, operation := range []string{"GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Encrypt", "ReEncrypt", "Decrypt"} {
			if got := after[operation] - before[operation]; got != want[operation] {
				t.Errorf("%d calls of %s, want %d", got, operation, want[operation])
			}
		}
	}
}

// many is how many deposits show that a count does not grow with them.
func many() int {
	if tmptest.Long() {
		return 10_000
	}
	return 800
}

// depositMany makes n deposits, of which every one has to be stored.
func (s *server) depositMany(t *testing.T, n int) {
	t.Helper()
	const clients = 16
	var all sync.WaitGroup
	var stored atomic.Int64
	for c := range clients {
		all.Go(func() {
			for i := range n / clients {
				if s.deposit(t, int64(c+1), fmt.Sprint("server-", i%50), "token").status == http.StatusOK {
					stored.Add(1)
				}
			}
		})
	}
	all.Wait()
	if stored.Load() != int64(n) {
		t.Errorf("%d of %d deposits were stored", stored.Load(), n)
	}
}

// key status names every wrap with its provider, so that an operator sees what a data
// key depends on.
func TestKeyStatusShowsEveryWrap(t *testing.T) {
	t.Parallel()
	v := newKMSVault(t)
	s := status(t, v.env)
	if len(s.DataKeys) != 1 || len(s.DataKeys[0].Wraps) != 2 {
		t.Fatalf("%+v, want one data key with two wraps", s.DataKeys)
	}
	for _, w := range s.DataKeys[0].Wraps {
		switch w.Provider {
		case "envkey":
		case "awskms":
			if w.KEKID.Key() != v.key.ARN() || w.KEKID.Version() != v.key.MaterialID() || w.KEKID != s.KEKID {
				t.Errorf("the wrap is under %s; the key is %s, and the current one %s", w.KEKID, v.key.ARN(), s.KEKID)
			}
		default:
			t.Errorf("a wrap of provider %q", w.Provider)
		}
	}
}
