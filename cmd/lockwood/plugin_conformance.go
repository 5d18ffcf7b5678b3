package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/internal/wiring"
	"github.com/lockwood-kms/lockwood/plugins"
)

func newPluginConformance(c *cli) *cobra.Command {
	var uri, foreign string
	var opts plugins.PinOptions
	cmd := &cobra.Command{
		Use: "conformance BINARY --uri KEY-URI", Short: "Examine a plugin as its author", Args: oneArg("the plugin's binary"),
		Example: "  lockwood plugin conformance ./lockwood-myhsm --uri myhsm://slot-1/forest --foreign myhsm://slot-1/other",
		Long: `Runs every check of a key provider against the plugin, in a process of its own
for each check. The binary need not be pinned: it is run because you said so.
With --foreign, a URI of another key of the same kind, the checks that need one
run as well. Checks that need a fault brought about are named, and not run: they
are for a test of the plugin's own (docs/plugins.md).`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if uri == "" {
				return usageError(errors.New("--uri is missing; name a key that the plugin can use for its examination"))
			}
			cfg, _ := config.Load(os.Environ(), c.variables())
			x := &examination{binary: args[0], uri: uri, foreign: foreign, opts: &opts, host: plugins.HostOptions{
				Logger: c.logger(cfg, toLook), Hidden: wiring.HiddenFiles(cfg),
				StartTimeout: patience, CallTimeout: patience,
			}}
			findings := x.run(cmd.Context())
			if err := c.print(findings, func(w io.Writer) { printFindings(w, findings) }); err != nil {
				return err
			}
			for _, f := range findings {
				if f.Verdict == verdictFail {
					return errFound
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&uri, "uri", "", "the key to examine it with")
	cmd.Flags().StringSliceVar(&opts.Env, "env", nil, "names of environment variables that it may see besides the usual ones")
	cmd.Flags().StringSliceVar(&opts.Write, "write", nil, "absolute paths of files and directories that it may change")
	cmd.Flags().StringVar(&foreign, "foreign", "", "another key of the same kind")
	return cmd
}

// patience is how long a plugin may take to start, or to answer a call, while it is
// examined: what it does is judged, and not the machine that it is developed on.
const patience = time.Minute

// examination is one run of the conformance checks.
type examination struct {
	binary, uri, foreign string
	opts                 *plugins.PinOptions // besides the usual
	host                 plugins.HostOptions
}

func (x *examination) run(ctx context.Context) []finding {
	findings := []finding{}
	for _, check := range providertest.Checks() {
		err := x.one(ctx, check)
		switch {
		case errors.Is(err, providertest.ErrNotApplicable):
			findings = append(findings, finding{check.Name, verdictSkip, err.Error(), ""})
		case err != nil:
			findings = append(findings, finding{check.Name, verdictFail, err.Error(), check.Doc})
		default:
			findings = append(findings, finding{check.Name, verdictOK, check.Doc, ""})
		}
	}
	return findings
}

// one runs a check on new processes.
func (x *examination) one(ctx context.Context, check providertest.Check) error {
	s := &providertest.Subject{Lacks: map[providertest.Hook]string{
		providertest.HookForeign:     "name another key of the same kind with --foreign",
		providertest.HookDeny:        "only a test of the plugin's own can make its KEK refuse",
		providertest.HookUnavailable: "only a test of the plugin's own can take its KEK away",
		providertest.HookMissing:     "only a test of the plugin's own can take its key away",
		providertest.HookRotate:      "only a test of the plugin's own can rotate its KEK",
		providertest.HookLenient:     "only a test of the plugin's own can make its service lenient",
	}}
	host, err := plugins.NewHost(x.host)
	if err != nil {
		return err
	}
	defer host.Close()
	open := func(ctx context.Context, uri string) (core.KeyProvider, error) {
		parsed, err := core.ParseKeyURI(uri)
		if err != nil {
			return nil, err
		}
		p, err := host.OpenBinary(ctx, x.binary, parsed, x.opts)
		if err != nil {
			return nil, fmt.Errorf("starting the plugin: %w", err)
		}
		return p, nil
	}
	s.Restart = func(ctx context.Context) (core.KeyProvider, error) { return open(ctx, x.uri) }
	s.Provider = providertest.Lazy(s.Restart) // a check that is not run starts no process
	if x.foreign != "" {
		s.Foreign = providertest.Lazy(func(ctx context.Context) (core.KeyProvider, error) { return open(ctx, x.foreign) })
	}
	return check.Run(ctx, s)
}
