package plugins_test

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

// TestMain makes this binary whatever its name says: the plugins of these tests,
// good and bad, and a host that can be killed.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case "lockwood-one":
		plugins.ServeVersions("one", openMemory, 1)
	case "lockwood-two":
		plugins.ServeVersions("two", openMemory, 2)
	case "lockwood-both":
		plugins.ServeVersions("both", openMemory, 1, 2)
	case "lockwood-impostor":
		plugins.Serve("other", openMemory, nil)
	case "lockwood-crash":
		_, _ = os.Stderr.WriteString("panic: no luck\n")
		os.Exit(3)
	case "lockwood-junk":
		_, _ = os.Stdout.WriteString(strings.Repeat("\x00junk|", 100_000) + "\n")
		os.Exit(0)
	case "lockwood-mute":
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case "lockwood-bare":
		serveBare(true)
		os.Exit(0)
	case "lockwood-plain":
		serveBare(false)
		os.Exit(0)
	case "lockwood-late":
		openLate()
		os.Exit(0)
	case "mounthost":
		os.Exit(runMountHost(os.Args[1:]))
	case "testhost":
		os.Exit(runTestHost(os.Args[1:]))
	}
	plugintest.Main(m, map[string]core.Factory{"memory": openMemory})
}

// openLate is a plugin that says nothing until a file exists.
func openLate() {
	path := os.Getenv("LATE_FILE")
	if _, err := os.Stat(path); err != nil {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	plugins.Serve("late", func(ctx context.Context, uri core.KeyURI) (core.KeyProvider, error) {
		return openMemory(ctx, uri)
	}, nil)
}
