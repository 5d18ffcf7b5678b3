package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// file is the path of a SQLite database.
func (d *testDatabase) file() string { return strings.TrimPrefix(d.url, "sqlite:") }

// adminOf is where doctor asks the service.
func (s *server) adminOf() string { return "ADMIN_ADDR=" + strings.TrimPrefix(s.admin, "http://") }

func removeFiles(t *testing.T, path string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil {
			t.Fatal(err)
		}
	}
}

// A backup that is put in the place of a file that is served takes no deposits that are
// gone with the process: the service says so, everywhere, and serves the new file once it
// is restarted.
func TestAFileThatIsReplacedWhileServing(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 2)
	backup, err := os.ReadFile(d.file())
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, d.env).ready(t)
	if a := s.deposit(t, 1, "new", "token"); a.status != http.StatusOK {
		t.Fatalf("a deposit before: %d %s", a.status, a.body)
	}
	if list := found(t, append(d.env, s.adminOf()), "running service"); len(list) != 1 || list[0].Verdict != verdictOK {
		t.Errorf("doctor says before: %+v", list)
	}
	removeFiles(t, d.file())
	if a := s.deposit(t, 1, "lost", "token"); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("a deposit into a removed file: %d %s", a.status, a.body)
	}
	if err := os.WriteFile(d.file(), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, call := range [][2]string{{"POST", "/mcp-oauth-credentials"}, {"DELETE", "/mcp-oauth-credentials/server-0"}} {
		if a := s.call(t, 1, call[0], call[1], depositBody("lost", "token")); a.status != http.StatusServiceUnavailable {
			t.Errorf("%s while another file is there: %d %s", call, a.status, a.body)
		}
	}
	if a := s.readyz(t); a.status != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d %s", a.status, a.body)
	}
	if list := found(t, append(d.env, s.adminOf()), "running service"); len(list) != 1 || list[0].Verdict != verdictFail || !strings.Contains(list[0].Remedy, "restart") {
		t.Errorf("doctor says: %+v", list)
	}
	pgtest.Eventually(t, "the log says restart", func() bool {
		for line := range strings.Lines(s.log.String()) {
			if strings.Contains(line, `"ERROR"`) && strings.Contains(line, "the database takes no writes") && strings.Contains(line, "restart the service") {
				return true
			}
		}
		return false
	})
	s.stop(t)
	s = serve(t, d.env).ready(t)
	if a := s.deposit(t, 1, "new", "token"); a.status != http.StatusOK {
		t.Errorf("a deposit after a restart: %d %s", a.status, a.body)
	}
	if report := verify(t, d.env, exitOK); report.OK != 3 {
		t.Errorf("after a restart: %+v", report)
	}
}

// A service that was stopped leaves everything in the one file, which is a backup.
func TestACleanStopLeavesOneFile(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	s := serve(t, append(d.env, "DRAIN_GRACE=0s")).ready(t)
	for _, server := range []string{"a", "b", "c"} {
		if a := s.deposit(t, 1, server, "token"); a.status != http.StatusOK {
			t.Fatalf("deposit: %d %s", a.status, a.body)
		}
	}
	s.stop(t)
	entries, err := os.ReadDir(filepath.Dir(d.file()))
	if err != nil || len(entries) != 1 {
		t.Errorf("the files are %v, %v", entries, err)
	}
	text, err := os.ReadFile(d.file())
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if report := verify(t, d.with("DATABASE_URL=sqlite:"+copied), exitOK); report.OK != 3 {
		t.Errorf("the copy: %+v", report)
	}
}

// Where nothing can be written for want of room, deposits answer 503, the log and readyz
// say why, and it goes on by itself. The limit of the process on the size of a file stands
// for the disk.
func TestNoRoomWhileServing(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 1)
	s := serve(t, d.env).ready(t)
	var free unix.Rlimit
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4096, Max: unix.RLIM_INFINITY}, &free); err != nil {
		t.Fatal(err)
	}
	if a := s.deposit(t, 1, "full", "token"); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("a deposit: %d %s", a.status, a.body)
	}
	if a := s.call(t, 1, "GET", "/mcp-oauth-credentials", ""); a.status != http.StatusOK {
		t.Errorf("listing: %d %s", a.status, a.body)
	}
	pgtest.Eventually(t, "readyz says it", func() bool { return strings.Contains(s.readyz(t).body, `"writes"`) })
	if list := found(t, append(d.env, s.adminOf()), "running service"); len(list) != 1 || list[0].Verdict != verdictFail {
		t.Errorf("doctor says: %+v", list)
	}
	pgtest.Eventually(t, "the log says why", func() bool {
		return strings.Contains(s.log.String(), "make room on the disk")
	})
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_FSIZE, &free, nil); err != nil {
		t.Fatal(err)
	}
	if a := s.deposit(t, 1, "room", "token"); a.status != http.StatusOK {
		t.Errorf("a deposit with room: %d %s", a.status, a.body)
	}
	pgtest.Eventually(t, "the service writes again", func() bool { return !strings.Contains(s.readyz(t).body, `"writes"`) })
}

// A store that a newer version migrated is told at the start, which serves on, and by
// doctor, with what is not safe.
func TestANewerSchemaIsTold(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		fill(t, d.env, 1)
		d.exec(t, "INSERT INTO "+d.schema+"lockwood_migrations (version, applied_at) VALUES (99, CURRENT_TIMESTAMP)")
		list := found(t, d.env, "schema version")
		if len(list) != 1 || list[0].Verdict != verdictWarn || !strings.Contains(list[0].Detail, "to version 99") ||
			!strings.Contains(list[0].Detail, "rotation") || list[0].Remedy == "" {
			t.Errorf("doctor says %+v", list)
		}
		s := serve(t, d.env).ready(t)
		if text := s.log.String(); !strings.Contains(text, "to version 99") || !strings.Contains(text, "before any command that changes keys") {
			t.Errorf("the start does not say it:\n%s", text)
		}
		if a := s.deposit(t, 1, "another", "token"); a.status != http.StatusOK {
			t.Errorf("a deposit: %d %s", a.status, a.body)
		}
	})
}

// The backup that docs/operations.md names, made while a service writes, has everything.
func TestABackupWhileServing(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	s := serve(t, d.env).ready(t)
	if a := s.deposit(t, 1, "a", "token"); a.status != http.StatusOK {
		t.Fatalf("deposit: %d %s", a.status, a.body)
	}
	copied := filepath.Join(t.TempDir(), "backup.db")
	d.exec(t, "VACUUM INTO ?", copied)
	if report := verify(t, d.with("DATABASE_URL=sqlite:"+copied), exitOK); report.OK != 1 {
		t.Errorf("the backup: %+v", report)
	}
	if a := s.deposit(t, 1, "b", "token"); a.status != http.StatusOK {
		t.Errorf("a deposit afterwards: %d %s", a.status, a.body)
	}
}
