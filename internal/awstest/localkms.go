package awstest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/lockwood-kms/lockwood/internal/buildtest"
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
	program, err := buildtest.Program(ctx, "localkms", filepath.Join(root, localModule), []string{"main.go", "go.mod", "go.sum"}, build)
	if errors.Is(err, buildtest.ErrNotBuilt) {
		err = ErrNotBuilt
	}
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
