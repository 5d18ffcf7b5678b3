package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/plain"
	agekek "github.com/lockwood-kms/lockwood/providers/age"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// keyIDs is what "key id" tells, and the shape of its JSON.
type keyIDs struct {
	KEKIDs []core.KEKID `json:"kek_ids"`
	// Warnings say what about the value is likely not meant.
	Warnings []string `json:"warnings"`
}

func newKeyID(c *cli) *cobra.Command {
	var variable, file, identity string
	cmd := &cobra.Command{
		Use: "id", Short: "Print the KEK ID of a key that you hold", Args: noArgs,
		Example: `  lockwood key id
  lockwood key id --variable FOREST_EXECUTOR_ENCRYPTION_KEY
  lockwood key id --file /run/secrets/encryption-key
  lockwood key id --identity recovery.txt`,
		Long: `Prints the KEK ID of an env key, by which key status, reports and the log name it,
or those of age identities. Nothing is stored, and no database is needed. The key
comes from a variable, from a file, or else from what is typed, which is not shown;
where standard input is no terminal it is read to its end.

Trailing newlines of a file are dropped, as they are of a key file. The value of a
variable counts as it is.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := exclusive(cmd, "variable", "file", "identity"); err != nil {
				return err
			}
			ids, err := c.keyIDs(cmd.Context(), variable, file, identity)
			if err != nil {
				return err
			}
			return c.print(ids, func(w io.Writer) {
				for _, id := range ids.KEKIDs {
					plain.Fprintf(w, "%s\n", id)
				}
				for _, warning := range ids.Warnings {
					plain.Fprintf(c.stderr, "warning: %s\n", warning)
				}
			})
		},
	}
	cmd.Flags().StringVar(&variable, "variable", "", "name of an environment variable that holds the key")
	cmd.Flags().StringVar(&file, "file", "", "file that holds the key")
	cmd.Flags().StringVar(&identity, "identity", "", "file of age identities, as age-keygen writes it")
	return cmd
}

func (c *cli) keyIDs(ctx context.Context, variable, file, identity string) (*keyIDs, error) {
	if identity != "" {
		return idsOfIdentities(ctx, identity)
	}
	key, err := c.keyAtHand(ctx, variable, file)
	if err != nil {
		return nil, err
	}
	switch {
	case len(key) == 0:
		return nil, usageError(errors.New("the key is empty; see: lockwood key id --help"))
	case bytes.IndexByte(key, 0) >= 0:
		return nil, usageError(errors.New("the key holds NUL bytes, as text in UTF-16 does; save it as ASCII or UTF-8"))
	}
	// A previous key may be of any strength, and what it is good for is not judged here.
	keys, err := envkey.New(envkey.Options{Previous: []core.SecretBytes{key}})
	if err != nil {
		return nil, usageError(ofTheKey(err.Error()))
	}
	providers := keys.Previous()
	if len(providers) == 0 {
		return nil, usageError(errors.New("the key is not UTF-8: it opens legacy records, wraps no data key, and has no KEK ID"))
	}
	status, err := providers[0].Status(ctx)
	if err != nil {
		return nil, err
	}
	ids := &keyIDs{[]core.KEKID{status.KEKID}, []string{}}
	for _, warning := range keys.Warnings() {
		ids.Warnings = append(ids.Warnings, ofTheKey(warning).Error())
	}
	return ids, nil
}

// ofTheKey is what was said of the value of a variable, which the key at hand was passed
// as, said of the key.
func ofTheKey(text string) error {
	return errors.New(strings.ReplaceAll(text, envkey.PreviousVariable+": key 1: ", ""))
}

// keyAtHand returns the key that the operator means.
func (c *cli) keyAtHand(ctx context.Context, variable, file string) (core.SecretBytes, error) {
	switch {
	case variable != "":
		for _, e := range os.Environ() {
			if value, ok := strings.CutPrefix(e, variable+"="); ok {
				return core.SecretBytes(value), nil
			}
		}
		return nil, usageError(fmt.Errorf("the variable %q is not set", variable))
	case file != "":
		value, err := os.ReadFile(file)
		if err != nil {
			return nil, usageError(fmt.Errorf("--file: %w", err))
		}
		return core.SecretBytes(strings.TrimRight(string(value), "\n")), nil
	case term.IsTerminal(int(os.Stdin.Fd())):
		return c.typedKey(ctx)
	}
	value, err := io.ReadAll(bufio.NewReader(io.LimitReader(os.Stdin, maxTypedKey)))
	if err != nil {
		return nil, fmt.Errorf("reading the key from standard input: %w", err)
	}
	return core.SecretBytes(strings.TrimRight(string(value), "\n")), nil
}

// maxTypedKey bounds what is read from standard input, in bytes.
const maxTypedKey = 1 << 20

// typedKey asks for the key at the terminal, which does not show it.
func (c *cli) typedKey(ctx context.Context) (core.SecretBytes, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("asking for the key: %w", err)
	}
	plain.Fprintf(c.stderr, "Key (it is not shown): ")
	type typed struct {
		value []byte
		err   error
	}
	read := make(chan typed, 1)
	go func() {
		value, err := term.ReadPassword(fd)
		read <- typed{value, err}
	}()
	defer plain.Fprintf(c.stderr, "\n")
	select {
	case t := <-read:
		if t.err != nil {
			return nil, fmt.Errorf("asking for the key: %w", t.err)
		}
		return core.SecretBytes(t.value), nil
	case <-ctx.Done():
		_ = term.Restore(fd, before) // so that the terminal shows what is typed again
		return nil, context.Cause(ctx)
	}
}

func idsOfIdentities(ctx context.Context, path string) (*keyIDs, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usageError(fmt.Errorf("--identity: %w", err))
	}
	defer f.Close()
	identities, err := agekek.ParseIdentities(f)
	if err != nil {
		return nil, usageError(fmt.Errorf("--identity: %w", err))
	}
	ids := &keyIDs{KEKIDs: []core.KEKID{}, Warnings: []string{}}
	for _, i := range identities {
		status, err := i.Provider().Status(ctx)
		if err != nil {
			return nil, err
		}
		ids.KEKIDs = append(ids.KEKIDs, status.KEKID)
	}
	return ids, nil
}
