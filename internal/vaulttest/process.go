package vaulttest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// RequireEnv is the variable that turns a skip for want of the server into a
// failure, and permits to build it.
const RequireEnv = "LOCKWOOD_TEST_REQUIRE_SERVERS"

// ErrNotBuilt means that OpenBao is not built, and that the caller does not want to
// wait for it.
var ErrNotBuilt = errors.New("OpenBao is not built (go test with " + RequireEnv + "=1 builds it once, in several minutes)")

// module is the module of the server, from the root of the repository.
const module = "test/openbao"

// Start starts a server, and returns it and what ends it. It ends with this process
// as well. Without build it returns ErrNotBuilt where the program is not there yet.
// root is the root of the repository.
func Start(ctx context.Context, root string, build bool) (s *Server, stop func(), err error) {
	program, err := find(ctx, filepath.Join(root, module), build)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(program) // it outlives ctx, and ends with its input
	cmd.Env = environment()
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("starting OpenBao: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("starting OpenBao: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting OpenBao: %w", err)
	}
	stop = func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}
	s = &Server{input: in}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, s)
	}
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("starting OpenBao: it did not say where it listens: %w", err)
	}
	return s, stop, nil
}

// environment is this process's, without what would make the server another one: the
// FIPS mode of the tests, which refuses algorithms that OpenBao uses inside, and
// settings of OpenBao itself.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(pair string) bool {
		return strings.HasPrefix(pair, "GODEBUG=") || strings.HasPrefix(pair, "BAO_") || strings.HasPrefix(pair, "VAULT_")
	})
}

// find returns the built program. Its name has a hash of its sources, so that an old
// one is never taken for the present one.
func find(ctx context.Context, dir string, build bool) (string, error) {
	h := sha256.New()
	for _, name := range []string{"main.go", "registry.go", "go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("looking for OpenBao: %w", err)
		}
		h.Write(b)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("looking for OpenBao: %w", err)
	}
	program := filepath.Join(cache, "lockwood-test", "openbao-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if !build {
		return "", ErrNotBuilt
	}
	// Two test processes may build at once: each under a name of its own first.
	made := fmt.Sprintf("%s.%d", program, os.Getpid())
	cmd := exec.CommandContext(ctx, "go", "build", "-C", dir, "-o", made, ".")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFIPS140=off", "GODEBUG=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building OpenBao: %w\n%s", err, text)
	}
	if err := os.Rename(made, program); err != nil {
		return "", fmt.Errorf("building OpenBao: %w", err)
	}
	return program, nil
}
