package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/internal/wiring"
	"github.com/lockwood-kms/lockwood/plugins"
)

func newPlugin(c *cli) *cobra.Command {
	var dir, lock string
	g := group("plugin", "Manage the plugins that reach keys in a KMS",
		newPluginList(c, &dir, &lock), newPluginPin(c, &dir, &lock), newPluginCheck(c, &dir, &lock), newPluginConformance(c))
	g.PersistentFlags().StringVar(&dir, "dir", "", "directory of the plugins, instead of FOREST_EXECUTOR_PLUGIN_DIR")
	g.PersistentFlags().StringVar(&lock, "lock", "", "lock file, instead of FOREST_EXECUTOR_PLUGIN_LOCK")
	return g
}

// oneArg is a cobra.PositionalArgs that wants one argument, named what.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError(fmt.Errorf("%q wants %s; see %q", cmd.CommandPath(), what, cmd.CommandPath()+" --help"))
		}
		return nil
	}
}

// pluginConfig is the configuration as far as plugins are concerned, with the
// flags in the place of the variables. What else is wrong with it does not matter
// to these commands.
func (c *cli) pluginConfig(dir, lock string) *config.Config {
	cfg, _ := config.Load(os.Environ(), c.variables())
	if dir != "" {
		cfg.PluginDir = dir
	}
	if lock != "" {
		cfg.PluginLock = lock
	}
	return cfg
}

// pluginEntry is a plugin in a list, and the shape of its JSON.
type pluginEntry struct {
	Scheme   string   `json:"scheme"`
	File     string   `json:"file"`
	Found    bool     `json:"found"`
	Pinned   bool     `json:"pinned"`
	Trusted  bool     `json:"trusted"`
	SHA256   string   `json:"sha256"`
	Protocol int      `json:"protocol"`
	Version  string   `json:"version"`
	Env      []string `json:"env"`
	Write    []string `json:"write"`
	Problem  string   `json:"problem,omitempty"`
}

func newPluginList(c *cli, dir, lock *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show the plugins that are there, and whether they may run", Args: noArgs,
		Example: `  lockwood plugin list`,
		Long: `Shows every plugin in the plugin directory or in the lock file: whether it is
pinned and unchanged since, its SHA-256, its version, and the version of the
protocol it speaks, for which those that are trusted are started for a moment.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, err := c.listPlugins(cmd.Context(), c.pluginConfig(*dir, *lock))
			if err != nil {
				return usageError(err)
			}
			return c.print(entries, func(w io.Writer) { printPlugins(w, entries) })
		},
	}
}

func (c *cli) listPlugins(ctx context.Context, cfg *config.Config) ([]pluginEntry, error) {
	host, err := wiring.NewHost(cfg, c.logger(cfg, toLook))
	if err != nil {
		return nil, err
	}
	defer host.Close()
	found, err := host.List(ctx)
	if err != nil {
		return nil, err
	}
	entries := []pluginEntry{}
	for _, i := range found {
		e := pluginEntry{
			Scheme: i.Scheme, File: i.File, Found: i.Found, Pinned: i.Pinned, Trusted: i.Trusted,
			SHA256: i.SHA256, Protocol: i.Protocol, Version: i.Version, Env: append([]string{}, i.Env...),
			Write: append([]string{}, i.Write...),
		}
		if i.Problem != nil {
			e.Problem = i.Problem.Error()
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func printPlugins(w io.Writer, entries []pluginEntry) {
	if len(entries) == 0 {
		plain.Fprintf(w, "There is no plugin, neither in the plugin directory nor in the lock file.\n")
	}
	for _, e := range entries {
		state := "not pinned"
		switch {
		case e.Trusted:
			state = "pinned"
		case e.Pinned:
			state = "pinned, may not run"
		}
		plain.Fprintf(w, "%s  %s\n", e.Scheme, state)
		plain.Fprintf(w, "  file      %s\n  sha256    %s\n", e.File, orNone(e.SHA256))
		if e.Protocol != 0 {
			plain.Fprintf(w, "  version   %s, protocol %d\n", orNone(e.Version), e.Protocol)
		}
		if e.Problem != "" {
			plain.Fprintf(w, "  problem   %s\n", plain.Indent(e.Problem, 12))
		}
	}
}

// pinResult is what "plugin pin" did with one plugin, and the shape of its JSON.
type pinResult struct {
	Scheme string   `json:"scheme"`
	SHA256 string   `json:"sha256"`
	Was    string   `json:"was,omitempty"`
	Env    []string `json:"env"`
	Write  []string `json:"write"`
}

func newPluginPin(c *cli, dir, lock *string) *cobra.Command {
	var names, write []string
	cmd := &cobra.Command{
		Use: "pin PLUGIN...", Short: "Trust plugins as they are now", Args: somePlugins,
		Example: `  lockwood plugin pin lockwood-awskms
  lockwood plugin pin lockwood-vault --env VAULT_ADDR,VAULT_TOKEN`,
		Long: `Writes the SHA-256 of each plugin, a file in the plugin directory, into the lock
file, with the names of the variables that it may see, and the files that it may
change. Only what is pinned there is ever started, so pin what you built or
verified yourself.

Without --env a plugin that was pinned before keeps its names; a new one gets
those that the credential chain of its SDK reads. Lockwood's own secrets are
never shown to a plugin. Without --write it keeps its files; a new one gets none,
and can write to a directory of its own, TMPDIR.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg := c.pluginConfig(*dir, *lock)
			if *dir == "" && cfg.PluginDir == "" && filepath.Base(args[0]) != args[0] {
				cfg.PluginDir = filepath.Dir(args[0])
			}
			opts := &plugins.PinOptions{}
			if cmd.Flags().Changed("env") {
				opts.Env = append([]string{}, names...)
			}
			if cmd.Flags().Changed("write") {
				opts.Write = append([]string{}, write...)
			}
			results, err := c.pin(cfg, args, opts)
			if printErr := c.print(results, func(w io.Writer) { printPins(w, results) }); err == nil {
				err = printErr
			}
			return err
		},
	}
	cmd.Flags().StringSliceVar(&names, "env", nil, "names of environment variables that it may see, instead of the usual ones")
	cmd.Flags().StringSliceVar(&write, "write", nil, "absolute paths of files and directories that it may change")
	return cmd
}

func somePlugins(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError(errors.New("want the plugins to pin; see: lockwood plugin list"))
	}
	return nil
}

func (c *cli) pin(cfg *config.Config, files []string, opts *plugins.PinOptions) ([]pinResult, error) {
	results := []pinResult{}
	host, err := wiring.NewHost(cfg, c.logger(cfg, toLook))
	if err != nil {
		return results, usageError(err)
	}
	defer host.Close()
	var errs []error
	for _, file := range files {
		p, err := host.Pin(file, opts)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		results = append(results, pinResult{p.Scheme, p.SHA256, p.Was, append([]string{}, p.Env...), append([]string{}, p.Write...)})
	}
	if err := errors.Join(errs...); err != nil {
		return results, usageError(err)
	}
	return results, nil
}

func printPins(w io.Writer, results []pinResult) {
	for _, r := range results {
		plain.Fprintf(w, "pinned %s%s as %s\n", plugins.FilePrefix, r.Scheme, r.SHA256)
		if r.Was != "" && r.Was != r.SHA256 {
			plain.Fprintf(w, "  it was %s\n", r.Was)
		}
		plain.Fprintf(w, "  it may see %d variables of the environment; lockwood plugin list --json names them\n", len(r.Env))
		for _, path := range r.Write {
			plain.Fprintf(w, "  it may change %s\n", path)
		}
	}
}
