package main

import (
	"fmt"
	"strings"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/lockwood-kms/lockwood/internal/gcptest"
)

// A rotation that cannot go on, since a version of the KEK opens nothing any more, does
// not say that every record opens.
func TestARotationSaysWhatDoesNotOpen(t *testing.T) {
	t.Parallel()
	cloud, err := gcptest.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	key := cloud.CreateKey("forest", nil)
	uri := fmt.Sprintf("gcpkms:///%s?insecure=true&endpoint=%s", key.Name(), cloud.Addr)
	env := append(append(sqliteDatabase(t).with("FOREST_EXECUTOR_ENCRYPTION_KEY"), pluginsEnv(t)...), "FOREST_EXECUTOR_KEY_PROVIDER="+uri, "FOREST_EXECUTOR_AUTO_REWRAP=false")
	fill(t, env, 4)
	key.Rotate()
	if r := do(t, env, "key", "roll"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	key.SetState(1, kmspb.CryptoKeyVersion_DISABLED)
	r := do(t, env, "key", "rotate", "--wait")
	if r.code == exitOK || strings.Contains(r.stderr, "every record opens as before") || !strings.Contains(r.stderr, "Nothing is lost by it") {
		t.Errorf("exit code %d:\n%s", r.code, r.stderr)
	}
	t.Log(r.stderr)
}
