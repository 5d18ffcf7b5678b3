package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/rotation"
)

func newKey(c *cli) *cobra.Command {
	return group("key", "Keys: make one, look at those in use, rotate them", newKeyGenerate(c), newKeyID(c), newKeyStatus(c),
		newKeyReport(c), newKeyRotate(c), newKeyRewrap(c), newKeyRoll(c), newKeyDestroy(c), newKeyPrune(c), newKeyAbandon(c), newKeyLegacy(c))
}

func newKeyGenerate(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "generate", Short: "Print a new encryption key, as openssl rand -hex 32 does", Args: noArgs,
		Example: `  lockwood key generate
  umask 077; lockwood key generate > encryption-key`,
		Long: `Prints 32 random bytes as 64 hexadecimal digits: a value for
FOREST_EXECUTOR_ENCRYPTION_KEY or FOREST_AUTH_SECRET. Nothing is stored.`,
		RunE: func(*cobra.Command, []string) error {
			key := envkey.Generate()
			return c.print(map[string]string{"key": key}, func(w io.Writer) { plain.Fprintf(w, "%s\n", key) })
		},
	}
}

func newKeyReport(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "report", Short: "Print the report of the last rotation again", Args: noArgs,
		Example: `  lockwood key report
  lockwood key report --json`,
		Long: `Prints what the last key rotate found, did and verified, as the store keeps it. It
writes nothing, and needs none of the keys that the report is about. With --json
it prints null where there was no rotation. Exit code 1 says that the rotation is
not finished, or that the store still depended on an old key when it was.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.report(cmd.Context()) },
	}
}

func (c *cli) report(ctx context.Context) error {
	v, err := c.inspect(ctx)
	if err != nil {
		return err
	}
	defer v.close()
	last, err := v.lastRotation(ctx)
	if err != nil {
		return err
	}
	if err := c.print(last, func(w io.Writer) { printLast(w, last) }); err != nil {
		return err
	}
	if last != nil && (last.State != "done" || len(last.Remains) > 0) {
		return errFound
	}
	return nil
}

// lastRotation returns the report of the last rotation, or nil where none began: the store
// may then keep what "key prune" noted for the next.
func (v *vault) lastRotation(ctx context.Context) (*rotation.Report, error) {
	last, err := v.rotator().LastReport(ctx)
	if err != nil || last == nil || last.State == "" {
		return nil, err
	}
	return last, nil
}

func printLast(w io.Writer, last *rotation.Report) {
	switch {
	case last == nil:
		plain.Fprintf(w, "This store holds no report of a rotation: none was run, or another version wrote it.\n")
	case last.State != "done":
		plain.Fprintf(w, "The last rotation, to %s, began at %s and is not finished: run %s again.\nUntil then lockwood key status shows how far it is.\n",
			last.KEKID, last.StartedAt.UTC().Format(time.RFC3339), rotateAgain(last))
	default:
		last.Print(w)
	}
}

// rotateAgain is the command that goes on with the rotation of r.
func rotateAgain(r *rotation.Report) string {
	switch {
	case len(r.Compromised) > 0:
		return "lockwood key rotate --compromised --wait"
	case r.Reseal:
		return "lockwood key rotate --reseal --wait"
	}
	return "lockwood key rotate"
}
