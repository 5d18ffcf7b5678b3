package vaulttest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lockwood-kms/lockwood/internal/buildtest"
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
	program, err := buildtest.Program(ctx, "openbao", filepath.Join(root, module), []string{"main.go", "registry.go", "go.mod", "go.sum"}, build)
	if errors.Is(err, buildtest.ErrNotBuilt) {
		err = ErrNotBuilt
	}
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
