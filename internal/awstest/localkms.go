package awstest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// RequireEnv is the variable that turns a skip for want of a server into a failure,
// and permits to build the server.
const RequireEnv = "LOCKWOOD_TEST_REQUIRE_SERVERS"

// ErrNotBuilt means that local-kms is not built, and that building it takes minutes
// of a cold cache, which only a run that asks for it should cost.
var ErrNotBuilt = errors.New("local-kms is not built (go test with " + RequireEnv + "=1 builds it once)")

// localModule is the module of the server, from the root of the repository.
const localModule = "test/localkms"

// StartLocalKMS starts local-kms and returns its URL, and what ends it. It ends
// with this process as well, however that ends. Without build it returns
// ErrNotBuilt where the server is not there yet.
func StartLocalKMS(ctx context.Context, root string, build bool) (url string, stop func(), err error) {
	program, err := localProgram(ctx, filepath.Join(root, localModule), build)
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(program)               // it outlives ctx, and ends with its input
	cmd.Env = append(os.Environ(), "GODEBUG=") // what is tested is the provider, not local-kms, under FIPS 140-3
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, fmt.Errorf("starting local-kms: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, fmt.Errorf("starting local-kms: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("starting local-kms: %w", err)
	}
	stop = func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("starting local-kms: it told no address: %w", err)
	}
	return strings.TrimSpace(line), stop, nil
}

// localProgram returns the built server. Its name has a hash of its sources, so that
// an old one is never taken for the present one.
func localProgram(ctx context.Context, module string, build bool) (string, error) {
	h := sha256.New()
	for _, name := range []string{"main.go", "go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", fmt.Errorf("looking for local-kms: %w", err)
		}
		h.Write(b)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("looking for local-kms: %w", err)
	}
	program := filepath.Join(cache, "lockwood-test", "localkms-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if !build {
		return "", ErrNotBuilt
	}
	// Two test processes may build at once: each under a name of its own first.
	made := fmt.Sprintf("%s.%d", program, os.Getpid())
	cmd := exec.CommandContext(ctx, "go", "build", "-C", module, "-o", made, ".")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFIPS140=off", "GODEBUG=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building local-kms: %w\n%s", err, text)
	}
	if err := os.Rename(made, program); err != nil {
		return "", fmt.Errorf("building local-kms: %w", err)
	}
	return program, nil
}
