// Command lockwood-awskms is the key provider plugin for AWS KMS: package awskms in
// a process of its own, so that the SDK of AWS and its credentials stay out of the
// process that holds the users' credentials. Lockwood starts it for awskms:// keys;
// by hand it only says what it is.
package main

import (
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/providers/awskms"
)

// version is set by the linker: see scripts/build.
var version = "devel"

func main() {
	plugins.Serve(awskms.Scheme, awskms.Open, &plugins.ServeOptions{Version: version})
}
