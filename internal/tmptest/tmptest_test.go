package tmptest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDir(t *testing.T) {
	var dir string
	t.Run("use", func(t *testing.T) {
		dir = Dir(t)
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it is still there after the test: %v", err)
	}
}

// The long form is on disk, as in production.
func TestTheLongFormIsOnDisk(t *testing.T) {
	t.Setenv("LOCKWOOD_TEST_LONG", "1")
	if root := Root(); root == memory || !Long() {
		t.Errorf("the root is %s", root)
	}
}
