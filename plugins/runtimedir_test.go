package plugins

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Hosts that start at the same moment do not take each other for dead.
func TestHostsThatStartTogetherLeaveEachOtherAlone(t *testing.T) {
	base := t.TempDir()
	if len(base) > 60 { // a socket's path is short
		base, _ = os.MkdirTemp("", "together-") //nolint:usetesting // see above
		defer os.RemoveAll(base)
	}
	for range 50 {
		var all sync.WaitGroup
		dirs := make([]*runtimeDir, 8)
		for i := range dirs {
			all.Go(func() {
				var err error
				if dirs[i], err = makeRuntimeDir(base); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, d := range dirs {
			if d == nil {
				continue
			}
			if _, err := os.Stat(filepath.Join(d.path, aliveName)); err != nil {
				t.Errorf("the directory of a host that lives: %v", err)
			}
			if err := d.close(); err != nil {
				t.Error(err)
			}
		}
	}
}
