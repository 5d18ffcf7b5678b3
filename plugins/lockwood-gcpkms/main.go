// Command lockwood-gcpkms is the key provider plugin for Google Cloud KMS: package
// gcpkms in a process of its own, so that the SDK of Google and its credentials
// stay out of the process that holds the users' credentials. Lockwood starts it for
// gcpkms:// keys; by hand it only says what it is.
package main

import (
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/providers/gcpkms"
)

// version is set by the linker: see scripts/build.
var version = "devel"

func main() {
	plugins.Serve(gcpkms.Scheme, gcpkms.Open, &plugins.ServeOptions{Version: version})
}
