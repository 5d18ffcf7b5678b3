package envkey_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// clock is a clock that stands still until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// watched is a key file under a clock, with what is logged.
type watched struct {
	*envkey.Keys
	path  string
	clock *clock
	log   *bytes.Buffer
}

func watch(t *testing.T, path string, o envkey.Options) *watched {
	t.Helper()
	w := &watched{path: path, clock: newClock(), log: new(bytes.Buffer)}
	o.File, o.Now, o.Logger = path, w.clock.now, slog.New(slog.NewTextHandler(w.log, nil))
	w.Keys = mustKeys(t, o)
	return w
}

// put replaces the file as a careful tool does.
func (w *watched) put(t *testing.T, content string) {
	t.Helper()
	next := w.path + ".next"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, w.path); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(2 * time.Second)
}

func (w *watched) status(t *testing.T) (core.Status, error) {
	t.Helper()
	return w.Provider().Status(t.Context())
}

func (w *watched) wantKEK(t *testing.T, value string) core.Status {
	t.Helper()
	st, err := w.status(t)
	if err != nil || st.KEKID != kekID(t, value) {
		t.Fatalf("KEK %s, %v; want %s", st.KEKID, err, kekID(t, value))
	}
	return st
}

func (w *watched) wantMissing(t *testing.T) {
	t.Helper()
	if _, err := w.status(t); !errors.Is(err, core.ErrKeyMissing) || !strings.Contains(err.Error(), w.path) {
		t.Fatalf("%v, want ErrKeyMissing and the path", err)
	}
	if len(w.LegacyKeys()) != 0 || w.LegacyKey() != nil {
		t.Fatal("a legacy key without a key")
	}
}

func (w *watched) wantLogged(t *testing.T, text string, times int) {
	t.Helper()
	if n := strings.Count(w.log.String(), text); n != times {
		t.Errorf("%q was logged %d times, want %d:\n%s", text, n, times, w.log)
	}
}

func TestFileTrailingNewlinesDropped(t *testing.T) {
	for _, end := range []string{"", "\n", "\n\n\n"} {
		w := watch(t, writeFile(t, t.TempDir(), hexKey+end), envkey.Options{})
		w.wantKEK(t, hexKey)
		if len(w.Warnings()) != 0 {
			t.Errorf("warnings %q", w.Warnings())
		}
	}
	// As with $(cat file), a carriage return stays, and is reported.
	for _, end := range []string{"\r\n", " \n", "\n "} {
		_, err := envkey.New(envkey.Options{File: writeFile(t, t.TempDir(), hexKey+end)})
		if err == nil || !strings.Contains(err.Error(), "white space") || !strings.Contains(err.Error(), envkey.FileVariable) {
			t.Errorf("%q after the key: %v", end, err)
		}
	}
}

// A key file in UTF-16 is refused as that, at the start and when it appears later.
func TestFileInUTF16(t *testing.T) {
	for name, o := range map[string]struct {
		order binary.AppendByteOrder
		bom   bool
	}{
		"little endian": {binary.LittleEndian, true}, "big endian": {binary.BigEndian, true},
		"without a byte order mark": {binary.LittleEndian, false}, "big endian without": {binary.BigEndian, false},
	} {
		text := hexKey + "\r\n"
		if o.bom {
			text = "\ufeff" + text
		}
		var b []byte
		for _, unit := range utf16.Encode([]rune(text)) {
			b = o.order.AppendUint16(b, unit)
		}
		path := writeFile(t, t.TempDir(), string(b))
		for variable, o := range map[string]envkey.Options{envkey.FileVariable: {File: path}, envkey.PreviousFileVariable: {PreviousFile: path}} {
			if _, err := envkey.New(o); err == nil || !strings.Contains(err.Error(), "UTF-16") || !strings.Contains(err.Error(), variable) || strings.Contains(err.Error(), hexKey) {
				t.Errorf("%s, %s: %v", variable, name, err)
			}
		}
		w := watch(t, filepath.Join(t.TempDir(), "key"), envkey.Options{})
		w.put(t, string(b))
		if _, err := w.status(t); !errors.Is(err, core.ErrKeyMissing) || !strings.Contains(err.Error(), "UTF-16") {
			t.Errorf("%s, later: %v", name, err)
		}
		w.put(t, hexKey)
		w.wantKEK(t, hexKey)
	}
}

func TestFileAppears(t *testing.T) {
	w := watch(t, filepath.Join(t.TempDir(), "key"), envkey.Options{})
	if len(w.Warnings()) != 1 || !strings.Contains(w.Warnings()[0], w.path) {
		t.Errorf("warnings %q, want one that names the path", w.Warnings())
	}
	w.wantMissing(t)
	p := w.Provider() // made before the key is there
	w.put(t, "")
	w.wantMissing(t)
	w.put(t, hexKey+"\n")
	if st, err := p.Status(t.Context()); err != nil || st.KEKID != kekID(t, hexKey) {
		t.Fatalf("KEK %s, %v", st.KEKID, err)
	}
	if w.LegacyKey() == nil || len(w.LegacyKeys()) != 1 {
		t.Error("no legacy key after the file appeared")
	}
	w.wantLogged(t, "taken up", 1)
}

// A file is not looked at more than once a second.
func TestFileIsAskedSeldom(t *testing.T) {
	w := watch(t, filepath.Join(t.TempDir(), "key"), envkey.Options{})
	if err := os.WriteFile(w.path, []byte(hexKey), 0o600); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(time.Second / 2)
	w.wantMissing(t)
	w.clock.pass(time.Second / 2)
	w.wantKEK(t, hexKey)
}

func TestWeakFileAppears(t *testing.T) {
	w := watch(t, filepath.Join(t.TempDir(), "key"), envkey.Options{})
	const weak = "a weak value of some length"
	w.put(t, weak)
	for range 3 {
		w.wantMissing(t)
		w.clock.pass(2 * time.Second)
	}
	w.put(t, weak+"\n") // another file, the same content
	w.wantMissing(t)
	w.wantLogged(t, "refused", 1)
	w.put(t, weak+" and another")
	w.wantMissing(t)
	w.wantLogged(t, "refused", 2)
	w.wantLogged(t, "openssl rand -hex 32", 2)
	w.wantLogged(t, weak, 0)
	w.put(t, hexKey)
	w.wantKEK(t, hexKey)
}

func TestWeakFileAtStart(t *testing.T) {
	path := writeFile(t, t.TempDir(), "a weak value of some length")
	if _, err := envkey.New(envkey.Options{File: path}); err == nil {
		t.Error("accepted")
	}
	w := watch(t, path, envkey.Options{AllowWeak: true})
	w.wantKEK(t, "a weak value of some length")
	if len(w.Warnings()) != 1 {
		t.Errorf("warnings %q, want one", w.Warnings())
	}
}

// A key that was taken up stays, whatever becomes of its file.
func TestFileChanges(t *testing.T) {
	w := watch(t, writeFile(t, t.TempDir(), hexKey), envkey.Options{})
	if st := w.wantKEK(t, hexKey); len(st.Warnings) != 0 {
		t.Errorf("warnings %q", st.Warnings)
	}
	w.put(t, otherKey)
	for range 3 {
		st := w.wantKEK(t, hexKey)
		if len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], string(kekID(t, otherKey))) {
			t.Fatalf("warnings %q, want one that names the other KEK", st.Warnings)
		}
		w.clock.pass(2 * time.Second)
	}
	w.wantLogged(t, "was not taken up", 1)
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(2 * time.Second)
	if st := w.wantKEK(t, hexKey); len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "does not exist") {
		t.Errorf("warnings %q, want one that the file is gone", st.Warnings)
	}
	w.put(t, hexKey+"\n")
	if st := w.wantKEK(t, hexKey); len(st.Warnings) != 0 {
		t.Errorf("warnings %q, though the file holds the key again", st.Warnings)
	}
	w.wantLogged(t, "was not taken up", 2)
	w.wantLogged(t, hexKey, 0)
	w.wantLogged(t, otherKey, 0)
}

// Kubernetes exchanges the directory that a secret's file is reached through.
func TestSymbolicLinkExchanged(t *testing.T) {
	dir := t.TempDir()
	version := func(name, content string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), content)
		link := filepath.Join(dir, "..data")
		if err := os.Symlink(name, link+".next"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".next", link); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "")
	path := filepath.Join(dir, "key")
	if err := os.Symlink(filepath.Join("..data", "key"), path); err != nil {
		t.Fatal(err)
	}
	w := watch(t, path, envkey.Options{})
	w.wantMissing(t)
	version("..2", hexKey)
	w.clock.pass(time.Second)
	w.wantKEK(t, hexKey)
	version("..3", otherKey)
	w.clock.pass(time.Second)
	if st := w.wantKEK(t, hexKey); len(st.Warnings) != 1 {
		t.Errorf("warnings %q, want one about the change", st.Warnings)
	}
}

// What is not a file of a key is a missing key that says why, and never blocks.
func TestNotAKeyFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	large := writeFile(t, t.TempDir(), strings.Repeat("00", 40<<10))
	for want, path := range map[string]string{
		"not that of a regular file": dir,
		"regular file":               pipe,
		"larger than":                large,
		"does not exist":             filepath.Join(dir, "none", "key"),
	} {
		w := watch(t, path, envkey.Options{})
		w.wantMissing(t)
		if _, err := w.status(t); !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The file is looked at by many callers at once.
func TestFileConcurrently(t *testing.T) {
	w := watch(t, filepath.Join(t.TempDir(), "key"), envkey.Options{})
	w.put(t, hexKey)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			w.clock.pass(2 * time.Second)
			if _, err := w.Provider().Status(t.Context()); err != nil {
				t.Error(err)
			}
			w.LegacyKeys()
		})
	}
	wg.Wait()
	w.wantLogged(t, "taken up", 1)
}
