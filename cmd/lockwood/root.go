package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/plain"
)

// The exit codes of every command.
const (
	exitOK          = 0
	exitFound       = 1   // the command ran, and what it looked at is not in order
	exitUsage       = 2   // the configuration or the command line is wrong
	exitUnavailable = 3   // the database or the key provider did not answer
	exitInterrupted = 130 // a signal ended the command, as shells tell SIGINT
)

// exitError is an error that chooses its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usageError(err error) error { return &exitError{exitUsage, err} }

// advisedError is an error with what is to be known besides, however the command ended.
type advisedError struct {
	err    error
	advice string
}

func (e *advisedError) Error() string { return e.err.Error() }
func (e *advisedError) Unwrap() error { return e.err }

// errFound is the error of a command that has printed what it found.
var errFound = &exitError{exitFound, errors.New("not everything is in order")}

// errInterrupted is what is told of a command that a signal ended.
var errInterrupted = errors.New("interrupted")

// run is main without the process: it runs the command that args name and
// returns its exit code. The end of ctx interrupts the command.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := newCLI(stdout, stderr)
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	c.json = c.json || slices.Contains(args, "--json") // also where the flags could not be read to the end
	if ctx.Err() != nil && err != nil && !errors.Is(err, errFound) {
		err = interrupted(err)
	}
	code := exitCode(err)
	if err != nil && !errors.Is(err, errFound) {
		c.tell(err, code)
	}
	return code
}

// interrupted is the error of a command that a signal ended with err. What failed
// because of the signal is not told, and what is to be known besides is.
func interrupted(err error) error {
	ended := error(&exitError{exitInterrupted, errInterrupted})
	if advised, ok := errors.AsType[*advisedError](err); ok {
		ended = &advisedError{ended, advised.advice}
	}
	return ended
}

func exitCode(err error) int {
	chosen, ok := errors.AsType[*exitError](err)
	switch {
	case err == nil:
		return exitOK
	case ok:
		return chosen.code
	case errors.Is(err, core.ErrStoreUnavailable), errors.Is(err, core.ErrUnavailable):
		return exitUnavailable
	}
	return exitFound
}

// failure is the error of a command as JSON, a line on standard error.
type failure struct {
	Event    string    `json:"event"` // "error"
	Time     time.Time `json:"time"`
	ExitCode int       `json:"exit_code"`
	Error    string    `json:"error"`
	// Remedies are what to know of it and what to do about it.
	Remedies []string `json:"remedies"`
}

// tell says on standard error why the command failed, and what to do.
func (c *cli) tell(err error, code int) {
	told := remedies(err)
	if advised, ok := errors.AsType[*advisedError](err); ok {
		told = append(told, advised.advice)
	}
	if c.json {
		_ = json.NewEncoder(plain.JSON(c.screen)).Encode(failure{"error", time.Now().UTC(), code, err.Error(), nonNil(told)})
		return
	}
	plain.Fprintf(c.stderr, "lockwood: %s\n", plain.Indent(err.Error(), 2))
	for _, remedy := range told {
		plain.Fprintf(c.stderr, "→ %s\n", plain.Indent(remedy, 2))
	}
}

// cli is what every command has in common.
type cli struct {
	stdout, stderr io.Writer // for text
	facts          io.Writer // standard output, for JSON
	help           io.Writer // standard output as it is, for help and scripts for shells, which are the program's own
	screen         *screen   // standard error as it is, for progress and logs
	envFile        string
	envFileNamed   bool // on the command line, so that it has to exist
	json           bool
	// database stands for the configured one, if it is not nil.
	database *config.Database
	// target is the URL of a database to which the command copies, or "".
	target string
}

func newCLI(stdout, stderr io.Writer) *cli {
	s := newScreen(stderr)
	return &cli{stdout: plain.Text(stdout), stderr: plain.Text(s), facts: plain.JSON(stdout), help: stdout, screen: s}
}

// variables is the file of further variables.
func (c *cli) variables() config.EnvFile {
	return config.EnvFile{Path: c.envFile, Optional: !c.envFileNamed}
}

// newRoot returns the whole command, which prints to stdout and stderr.
func newRoot(stdout, stderr io.Writer) *cobra.Command { return newCLI(stdout, stderr).root() }

func (c *cli) root() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "lockwood",
		Short: "A vault for stored OAuth credentials",
		Long: `Lockwood keeps OAuth credentials encrypted at rest.

Configuration comes from the environment and from a .env file; .env.example
explains every variable. What a command answers goes to standard output, and logs,
progress and errors go to standard error.

Exit codes:
  0    done, and all is in order
  1    the command ran, and what it looked at is not in order
  2    the configuration or the command line is wrong
  3    the database or the key provider did not answer
  130  interrupted by Ctrl-C or another signal`,
		Example: `  lockwood serve --dev
  lockwood doctor
  lockwood key rotate --help`,
		SilenceUsage:     true,
		SilenceErrors:    true,
		Args:             cobra.ArbitraryArgs, // so that RunE, and not cobra, answers an unknown command
		PersistentPreRun: func(cmd *cobra.Command, _ []string) { c.envFileNamed = cmd.Flags().Changed("env-file") },
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return unknownCommand(cmd, args[0])
			case version:
				return c.version()
			}
			return cmd.Help()
		},
	}
	root.SetOut(c.help)
	root.SetErr(c.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(fmt.Errorf("%s; see %q", core.Text(err.Error()), cmd.CommandPath()+" --help"))
	})
	root.Flags().BoolVar(&version, "version", false, "print the version")
	root.PersistentFlags().StringVar(&c.envFile, "env-file", ".env", "file of further variables; the environment wins, and a file that is named has to exist")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print facts, and errors, as JSON")
	root.AddCommand(newServe(c), newKey(c), newCredentials(c), newPlugin(c), newRecover(c), newBackup(c), newStore(c), newDoctor(c), newVersion(c))
	return root
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return usageError(fmt.Errorf("%q needs a command; see %q", cmd.CommandPath(), cmd.CommandPath()+" --help"))
		},
	}
	g.AddCommand(children...)
	return g
}

// unknownCommand is the error for name, which is no command of cmd.
func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	var similar []string
	for _, suggestion := range cmd.SuggestionsFor(name) {
		similar = append(similar, strconv.Quote(cmd.CommandPath()+" "+suggestion))
	}
	meant := ""
	if len(similar) > 0 {
		meant = "; did you mean " + strings.Join(similar, " or ") + "?"
	}
	return usageError(fmt.Errorf("there is no command %q%s; see %q", cmd.CommandPath()+" "+name, meant, cmd.CommandPath()+" --help"))
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
