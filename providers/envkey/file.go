package envkey

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

const (
	// lookInterval is how often a file is looked at, at most.
	lookInterval = time.Second
	// maxFileSize bounds what is read, in bytes; no key is longer.
	maxFileSize = 64 << 10
)

var errUTF16 = errors.New("the file holds NUL bytes, as text in UTF-16 does (Windows PowerShell's > writes it); save the same key as ASCII or UTF-8 without a byte order mark")

// keyFile is a value in a file. It is opened by its path each time, so that a
// secret volume of Kubernetes, which exchanges symbolic links, is followed.
type keyFile struct {
	path  string
	judge judge
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex
	looked  time.Time
	info    os.FileInfo // of the content seen last; nil if it could not be read
	seen    content
	key     *material // taken up; never exchanged afterwards
	keySum  content
	missing string // why there is no key, while there is none
	changed string // how the file differs from the key in use, if it does
}

// content tells apart what was seen in the file: the SHA-256 of the value, or why
// there is none.
type content struct {
	sum    [sha256.Size]byte
	reason string
}

func newKeyFile(path string, j judge, log *slog.Logger, now func() time.Time) *keyFile {
	return &keyFile{path: path, judge: j, log: log, now: now}
}

// start looks for the first time, where a value that is refused is an error and
// not a line in the log.
func (f *keyFile) start() (warnings []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	value, _ := f.look()
	defer clear(value)
	if f.missing == errUTF16.Error() {
		return nil, fmt.Errorf("%s: %w", f.name(), errUTF16)
	}
	if value == nil {
		return []string{f.name() + ": " + f.missing + "; the key is taken up when it appears there"}, nil
	}
	return f.takeUp(value)
}

func (f *keyFile) name() string { return fmt.Sprintf("%s (%s)", FileVariable, f.path) }

func (f *keyFile) material() (*material, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	if f.key == nil {
		return nil, fmt.Errorf("%s: %s: %w", f.name(), f.missing, core.ErrKeyMissing)
	}
	return f.key, nil
}

func (f *keyFile) warnings() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	if f.changed == "" {
		return nil
	}
	return []string{f.changed}
}

// refresh takes up a key that has appeared, and reports one that has changed.
// f.mu is held.
func (f *keyFile) refresh() {
	value, fresh := f.look()
	defer clear(value)
	switch {
	case !fresh:
	case f.key != nil:
		f.compare(value)
	case value != nil:
		warnings, err := f.takeUp(value)
		if err != nil {
			f.log.Error("encryption key file refused", "file", f.path, "error", err)
			return
		}
		for _, w := range warnings {
			f.log.Warn("encryption key file taken up with a warning", "file", f.path, "warning", w)
		}
		f.log.Info("encryption key file taken up", "file", f.path, "kek_id", f.key.kek.id)
	}
}

// takeUp makes value the key, unless it is refused. f.mu is held.
func (f *keyFile) takeUp(value []byte) (warnings []string, err error) {
	m, warnings, err := f.judge.current(f.name(), value)
	if err != nil {
		f.missing = "the value in the file is refused"
		return nil, err
	}
	f.key, f.keySum, f.missing = m, f.seen, ""
	return warnings, nil
}

// compare notes whether the file still holds the key in use. f.mu is held.
func (f *keyFile) compare(value []byte) {
	f.changed = ""
	if f.seen == f.keySum {
		f.log.Info("encryption key file holds the key in use again", "file", f.path, "kek_id", f.key.kek.id)
		return
	}
	now := f.seen.reason
	if value != nil {
		now = "the file now holds KEK " + string(describeID(value))
	}
	f.changed = fmt.Sprintf("%s changed after it was taken up: %s; KEK %s stays in use until a restart", f.name(), now, f.key.kek.id)
	f.log.Warn("encryption key file changed and was not taken up", "file", f.path, "kek_id", f.key.kek.id, "now", now)
}

// look reads the file, at most once in lookInterval and only if its metadata
// changed. fresh says that the content differs from the content seen before; value
// is nil unless fresh, and nil if there is none. f.mu is held.
func (f *keyFile) look() (value []byte, fresh bool) {
	now := f.now()
	if since := now.Sub(f.looked); !f.looked.IsZero() && since >= 0 && since < lookInterval {
		return nil, false
	}
	f.looked = now
	info, err := os.Stat(f.path)
	if err == nil && f.info != nil && sameFile(info, f.info) {
		return nil, false
	}
	f.info = nil
	if err == nil {
		if value, err = readKey(f.path); err == nil {
			f.info = info
		}
	}
	seen := content{reason: missingReason(value, err)}
	if seen.reason == "" {
		seen.sum = sha256.Sum256(value)
	}
	if seen == f.seen {
		clear(value)
		return nil, false
	}
	f.seen = seen
	if f.key == nil {
		f.missing = seen.reason
	}
	if seen.reason != "" {
		return nil, true
	}
	return value, true
}

func sameFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// missingReason says why there is no value, or returns "".
func missingReason(value []byte, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "the file does not exist"
	case err != nil:
		return err.Error()
	case len(value) == 0:
		return "the file is empty"
	}
	return ""
}

// readKey returns the content of a file without its trailing newlines, as a
// shell's $(cat file) does. A carriage return before one stays and counts as white
// space.
func readKey(path string) ([]byte, error) {
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(b, "\n"), nil
}

// readLines returns the lines of a file without their newlines.
func readLines(path string) ([]core.SecretBytes, error) {
	b, err := readKey(path)
	if err != nil {
		return nil, err
	}
	var lines []core.SecretBytes
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		lines = append(lines, line)
	}
	return lines, nil
}

// readSmall reads a regular file of at most maxFileSize. Anything else, such as a
// pipe, could block or would be gone when it is read again.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("the file cannot be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("the path is not that of a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the file cannot be read: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("the file cannot be read: %w", err)
	}
	if len(b) > maxFileSize {
		return nil, fmt.Errorf("the file is larger than %d bytes and cannot be a key", maxFileSize)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		// No variable can hold this, so it never was a key of upstream's.
		return nil, errUTF16
	}
	return b, nil
}
