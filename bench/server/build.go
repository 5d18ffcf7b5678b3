package server

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/lockwood-kms/lockwood"

// Build builds the product's binary in dir, and its plugins in dir/plugins, and
// returns the binary's path. The working
// directory must be inside the bench module.
func Build(ctx context.Context, dir string) (string, error) {
	root, err := goCommand(ctx, "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "lockwood")
	if _, err = goCommand(ctx, "build", "-C", strings.TrimSpace(root), "-o", binary, "./cmd/lockwood"); err != nil {
		return "", err
	}
	plugins := filepath.Join(dir, "plugins")
	if err := os.Mkdir(plugins, 0o700); err != nil {
		return "", err
	}
	_, err = goCommand(ctx, "build", "-C", strings.TrimSpace(root), "-o", plugins+"/", "./plugins/...")
	return binary, err
}

func goCommand(ctx context.Context, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, stderr.String())
	}
	return string(out), nil
}
