package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/plain"
)

// The exit codes of every command.
const (
	exitOK          = 0
	exitFound       = 1 // the command ran, and what it looked at is not in order
	exitUsage       = 2 // the configuration or the command line is wrong
	exitUnavailable = 3 // the database or the key provider did not answer
)

// exitError is an error that chooses its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usageError(err error) error { return &exitError{exitUsage, err} }

// errFound is the error of a command that has printed what it found.
var errFound = &exitError{exitFound, errors.New("not everything is in order")}

// run is main without the process: it runs the command that args name and
// returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errFound) {
		w := plain.Text(stderr)
		plain.Fprintf(w, "lockwood: %s\n", plain.Indent(err.Error(), 2))
		printRemedies(w, err)
	}
	if chosen, ok := errors.AsType[*exitError](err); ok {
		return chosen.code
	}
	if errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrUnavailable) {
		return exitUnavailable
	}
	return exitFound
}

// cli is what every command has in common.
type cli struct {
	stdout, stderr io.Writer // for text
	facts          io.Writer // standard output, for JSON
	terminal       io.Writer // standard error as it is, for progress bars and logs
	envFile        string
	envFileNamed   bool // on the command line, so that it has to exist
	json           bool
}

// variables is the file of further variables.
func (c *cli) variables() config.EnvFile {
	return config.EnvFile{Path: c.envFile, Optional: !c.envFileNamed}
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	c := &cli{stdout: plain.Text(stdout), stderr: plain.Text(stderr), facts: plain.JSON(stdout), terminal: stderr}
	root := &cobra.Command{
		Use:   "lockwood",
		Short: "A vault for stored OAuth credentials",
		Long: `Lockwood keeps OAuth credentials encrypted at rest.

Configuration comes from the environment and from a .env file; .env.example
explains every variable.

Exit codes:
  0  done, and all is in order
  1  the command ran, and what it looked at is not in order
  2  the configuration or the command line is wrong
  3  the database or the key provider did not answer`,
		SilenceUsage:     true,
		SilenceErrors:    true,
		Args:             cobra.ArbitraryArgs, // so that RunE, and not cobra, answers an unknown command
		PersistentPreRun: func(cmd *cobra.Command, _ []string) { c.envFileNamed = cmd.Flags().Changed("env-file") },
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(fmt.Errorf("there is no command %q; see: lockwood --help", args[0]))
			}
			return cmd.Help()
		},
	}
	root.SetOut(stdout) // help, and scripts for shells, which are the program's own
	root.SetErr(c.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usageError(errors.New(fmt.Sprint(core.Text(err.Error()))))
	})
	root.PersistentFlags().StringVar(&c.envFile, "env-file", ".env", "file of further variables; the environment wins, and a file that is named has to exist")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print facts as JSON")
	root.AddCommand(newServe(c), newKey(c), newCredentials(c), newPlugin(c), newRecover(c), newDoctor(c), newVersion(c))
	return root
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError(fmt.Errorf("%q needs a command; see %q", cmd.CommandPath(), cmd.CommandPath()+" --help"))
		},
	}
	g.AddCommand(children...)
	return g
}

// print writes v as indented JSON if that was asked for, and else what text
// writes.
func (c *cli) print(v any, text func(io.Writer)) error {
	if !c.json {
		text(c.stdout)
		return nil
	}
	e := json.NewEncoder(c.facts)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
