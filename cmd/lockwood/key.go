package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/providers/envkey"
)

func newKey(c *cli) *cobra.Command {
	return group("key", "Keys: make one, look at those in use, rotate them", newKeyGenerate(c), newKeyStatus(c),
		newKeyRotate(c), newKeyRewrap(c), newKeyRoll(c), newKeyDestroy(c), newKeyPrune(c), newKeyLegacy(c))
}

func newKeyGenerate(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "generate", Short: "Print a new encryption key, as openssl rand -hex 32 does", Args: noArgs,
		Long: `Prints 32 random bytes as 64 hexadecimal digits: a value for
FOREST_EXECUTOR_ENCRYPTION_KEY or FOREST_AUTH_SECRET. Nothing is stored.`,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.stdout, envkey.Generate())
			return err
		},
	}
}
