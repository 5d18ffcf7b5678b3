package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/internal/plain"
	agekek "github.com/lockwood-kms/lockwood/providers/age"
)

func newRecover(c *cli) *cobra.Command {
	var identity string
	var drill, dryRun bool
	var sample int
	cmd := &cobra.Command{
		Use: "recover", Short: "Get the data keys back after their KEK was lost", Args: noArgs,
		Example: `  lockwood recover --drill --identity recovery.txt
  lockwood recover --identity recovery.txt --dry-run
  lockwood recover --identity recovery.txt`,
		Long: `Restores access after the KEK was lost, from the wraps under the recovery KEKs of
FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS: with --identity from those for an age
recipient, whose identity the file holds, and else from those of a KMS.

Configure a new key first. The command makes a fresh primary data key under it,
and wraps the recovered data keys under it so that they open and never seal. Then
run: lockwood key rotate --reseal --wait

With --dry-run it says which data keys are lost, and through which recovery KEK
each would come back.

With --drill nothing is changed, and nothing is needed but the database and the
identity, or the recovery KEKs: every data key is unwrapped through these alone,
and a sample of credentials, from all over the table, is opened. It fails while
legacy records are left, which only the env key opens. Do it after setting a
recovery KEK up, and every few months.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if drill {
				return c.drill(cmd.Context(), identity, sample)
			}
			return c.recover(cmd.Context(), identity, dryRun)
		},
	}
	f := cmd.Flags()
	f.StringVar(&identity, "identity", "", "file of age identities, as age-keygen writes it")
	f.BoolVar(&drill, "drill", false, "prove that everything could be recovered, and change nothing")
	f.IntVar(&sample, "sample", 1000, "with --drill: how many credentials to open")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

// identities returns the providers of the file's identities or, without a file, of
// the recovery KEKs that are in a KMS.
func (c *cli) identities(path string, p *providers) ([]core.KeyProvider, error) {
	if path == "" {
		if len(p.Held) == 0 {
			return nil, usageError(errors.New("there is nothing to recover from: say --identity FILE, or set FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS to a key in a KMS"))
		}
		return p.Held, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, usageError(fmt.Errorf("--identity: %w", err))
	}
	defer f.Close()
	identities, err := agekek.ParseIdentities(f)
	if err != nil {
		return nil, usageError(fmt.Errorf("--identity: %w", err))
	}
	var list []core.KeyProvider
	for _, i := range identities {
		list = append(list, i.Provider())
	}
	return list, nil
}

// recoveredKey is the outcome for one data key.
type recoveredKey struct {
	KeyID   string     `json:"key_id"`
	Version int64      `json:"version"`
	Via     core.KEKID `json:"via,omitempty"`
	Problem string     `json:"problem,omitempty"`
}

func recoveredKeys(list []keyring.Recovered) (keys []recoveredKey, failed int) {
	keys = []recoveredKey{}
	for _, k := range list {
		r := recoveredKey{KeyID: k.DataKey.String(), Version: k.Version, Via: k.Via}
		if k.Err != nil {
			r.Problem = k.Err.Error()
			failed++
		}
		keys = append(keys, r)
	}
	return keys, failed
}

func printRecovered(w io.Writer, keys []recoveredKey, verb string) {
	for _, k := range keys {
		if k.Problem != "" {
			plain.Fprintf(w, "data key %s (version %d): %s\n", k.KeyID, k.Version, plain.Indent(k.Problem, 2))
			continue
		}
		plain.Fprintf(w, "data key %s (version %d) %s through %s\n", k.KeyID, k.Version, verb, k.Via)
	}
}

// recovery is the outcome of "recover", and the shape of its JSON.
type recovery struct {
	DataKeys []recoveredKey `json:"data_keys"` // those that were lost
	KEKID    core.KEKID     `json:"kek_id"`    // what they are wrapped under from now on
	DryRun   bool           `json:"dry_run"`
}

func (c *cli) recover(ctx context.Context, path string, dryRun bool) error {
	v, err := c.either(ctx, dryRun)
	if err != nil {
		return err
	}
	defer v.close()
	identities, err := c.identities(path, v.providers)
	if err != nil {
		return err
	}
	if v.keysUsable() != nil {
		return fmt.Errorf("the configured key cannot be used, and is what the data keys are to be wrapped under: %w", v.startErr)
	}
	recoverAll := v.ring.Recover
	if dryRun {
		recoverAll = v.planRecovery
	}
	list, err := recoverAll(ctx, identities)
	if err != nil {
		return err
	}
	keys, failed := recoveredKeys(list)
	result := recovery{DataKeys: keys, KEKID: v.ring.Status().KEKID, DryRun: dryRun}
	if err := c.print(result, func(w io.Writer) { result.print(w, v.ring.Status().Primary) }); err != nil {
		return err
	}
	if failed > 0 {
		return errFound
	}
	return nil
}

// planRecovery returns what Recover would do, and writes nothing.
func (v *vault) planRecovery(ctx context.Context, identities []core.KeyProvider) ([]keyring.Recovered, error) {
	lost, err := v.ring.Lost(ctx)
	if err != nil || len(lost) == 0 {
		return nil, err
	}
	found, err := v.ring.Examine(ctx, identities)
	return slices.DeleteFunc(found, func(k keyring.Recovered) bool { return !slices.Contains(lost, k.DataKey) }), err
}

func (r *recovery) print(w io.Writer, primary envelope.KeyID) {
	if len(r.DataKeys) == 0 {
		plain.Fprintf(w, "nothing is lost: the configured keys unwrap every data key\n")
		return
	}
	if r.DryRun {
		printRecovered(w, r.DataKeys, "would be recovered")
		plain.Fprintf(w, "They would be wrapped under %s, and the primary data key would be a fresh one; nothing was written\n", r.KEKID)
		return
	}
	printRecovered(w, r.DataKeys, "recovered")
	plain.Fprintf(w, "The primary data key is a fresh one, %s. What was recovered opens and never seals;\nto be rid of it run: lockwood key rotate --reseal --wait\n", primary)
}
