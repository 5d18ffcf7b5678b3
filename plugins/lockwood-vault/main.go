// Command lockwood-vault is the key provider plugin for the transit engine of Vault
// and OpenBao: package vault in a process of its own, so that Vault's client and
// its tokens stay out of the process that holds the users' credentials. Lockwood
// starts it for vault:// keys; by hand it only says what it is.
package main

import (
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/providers/vault"
)

// version is set by the linker: see scripts/build.
var version = "devel"

func main() {
	plugins.Serve(vault.Scheme, vault.Open, &plugins.ServeOptions{Version: version})
}
