// Package buildtest builds the servers for tests that are modules of their own,
// and keeps them in the user's cache directory. Such a build takes all of the
// machine for minutes, and several tests, of several processes, ask for it at once
// where the cache is cold: one builds, and the others wait for it.
package buildtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// ErrNotBuilt means that the program is not built, and that the caller does not want
// to wait for it.
var ErrNotBuilt = errors.New("it is not built")

// Program returns the path of the program of the module in dir, which it builds if
// build permits that and it is not there. sources are the module's files: the
// program is kept under the name and a hash of them, so that an old one is never
// taken for the present one. It is safe for concurrent use by many processes.
func Program(ctx context.Context, name, dir string, sources []string, build bool) (string, error) {
	h := sha256.New()
	for _, file := range sources {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return "", fmt.Errorf("looking for %s: %w", name, err)
		}
		h.Write(b)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("looking for %s: %w", name, err)
	}
	program := filepath.Join(cache, "lockwood-test", name+"-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if !build {
		return "", ErrNotBuilt
	}
	if err := inTurn(ctx, dir, program); err != nil {
		return "", fmt.Errorf("building %s: %w", name, err)
	}
	return program, nil
}

// Kept returns a directory in the user's cache directory that is always the same for
// purpose and the module in dir, so that the Go tool finds again what it built there. It
// is the caller's alone until turn is closed.
func Kept(purpose, dir string) (kept string, turn *os.File, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", nil, err
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256([]byte(root)) // what other directories hold may differ
	kept = filepath.Join(cache, "lockwood-test", purpose+"-"+hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(kept, 0o700); err != nil {
		return "", nil, err
	}
	turn, err = lock(kept + ".lock")
	return kept, turn, err
}

// Plugins builds the plugins of the module in dir as an operator gets them, and puts
// them into the directory to, which has to exist. What was built before and has not
// changed is not built again. It is safe for concurrent use by many processes.
func Plugins(dir, to string) error { return build("plugins", "./plugins/...", dir, to) }

// Product is Plugins for the program lockwood.
func Product(dir, to string) error { return build("product", "./cmd/lockwood", dir, to) }

func build(what, packages, dir, to string) error {
	kept, turn, err := Kept(what, dir)
	if err != nil {
		return fmt.Errorf("building the %s: %w", what, err)
	}
	defer turn.Close()
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", kept+string(filepath.Separator), packages)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GODEBUG=", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the %s: %w\n%s", what, err, text)
	}
	programs, err := filepath.Glob(filepath.Join(kept, "lockwood*"))
	if err != nil {
		return fmt.Errorf("building the %s: %w", what, err)
	}
	for _, program := range programs {
		// The next build puts another file in this one's place, and does not write to it.
		if err := linkOrCopy(program, filepath.Join(to, filepath.Base(program))); err != nil {
			return fmt.Errorf("building the %s: %w", what, err)
		}
	}
	return nil
}

func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	program, err := os.ReadFile(from) // another file system
	if err != nil {
		return err
	}
	return os.WriteFile(to, program, 0o755)
}

// lock waits for the turn of this process, which ends when the file is closed.
func lock(path string) (*os.File, error) {
	turn, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(turn.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, turn.Close())
	}
	return turn, nil
}

// inTurn builds the program, unless it is there by the time it is this one's turn.
func inTurn(ctx context.Context, dir, program string) error {
	if err := os.MkdirAll(filepath.Dir(program), 0o700); err != nil {
		return err
	}
	turn, err := lock(program + ".lock")
	if err != nil {
		return err
	}
	defer turn.Close() // which ends the turn
	if _, err := os.Stat(program); err == nil {
		return nil
	}
	made := program + ".new"
	cmd := exec.CommandContext(ctx, "go", "build", "-C", dir, "-o", made, ".")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFIPS140=off", "GODEBUG=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	return os.Rename(made, program)
}
