// Command lockwood-acmehsm is an example of a key provider plugin in Go, to write your own
// from: main.go is all that makes a program of a provider, and key.go is the provider. Its
// key is in a file, which stands in for your HSM, so that you can run it as it is. It
// protects little: a KEK in a file beside the database is stolen with the database.
// docs/plugins.md, "Writing one in Go", leads through it.
package main

import "github.com/lockwood-kms/lockwood/plugins"

var version = "devel" // set by the linker

func main() {
	plugins.Serve("acmehsm", Open, &plugins.ServeOptions{Version: version})
}
