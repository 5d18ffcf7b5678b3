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

// inTurn builds the program, unless it is there by the time it is this one's turn.
func inTurn(ctx context.Context, dir, program string) error {
	if err := os.MkdirAll(filepath.Dir(program), 0o700); err != nil {
		return err
	}
	turn, err := os.OpenFile(program+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer turn.Close() // which ends the turn
	if err := syscall.Flock(int(turn.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
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
