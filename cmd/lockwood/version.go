package main

import (
	"crypto/fips140"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/internal/plain"
)

// version is set by the linker (scripts/build); without it, the module's version
// or the revision that the Go tool recorded is told.
var version string

func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}

func newVersion(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		Example: "  lockwood version --json",
		RunE:    func(*cobra.Command, []string) error { return c.version() },
	}
}

// version prints which version this is.
func (c *cli) version() error {
	facts := struct {
		Version string `json:"version"`
		Go      string `json:"go"`
		FIPS140 bool   `json:"fips140"`
	}{versionString(), runtime.Version(), fips140.Enabled()}
	return c.print(facts, func(w io.Writer) {
		plain.Fprintf(w, "lockwood %s (%s, FIPS 140-3 mode %s)\n", facts.Version, facts.Go, onOff(facts.FIPS140))
	})
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// exclusive refuses more than one of the flags.
func exclusive(cmd *cobra.Command, names ...string) error {
	var set []string
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			set = append(set, "--"+name)
		}
	}
	if len(set) > 1 {
		return usageError(fmt.Errorf("%s exclude each other; see %q", strings.Join(set, " and "), cmd.CommandPath()+" --help"))
	}
	return nil
}

// noArgs refuses arguments with the exit code of a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError(err)
	}
	return nil
}
