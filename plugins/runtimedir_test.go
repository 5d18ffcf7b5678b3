package plugins

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Hosts that start at the same moment do not take each other for dead.
func TestHostsThatStartTogetherLeaveEachOtherAlone(t *testing.T) {
	base, err := os.MkdirTemp("", "together-") //nolint:usetesting // the path to a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	for range 50 {
		var all sync.WaitGroup
		dirs := make([]*runtimeDir, 8)
		for i := range dirs {
			all.Go(func() {
				d, err := makeRuntimeDirIn(base)
				if err != nil {
					t.Error(err)
				}
				dirs[i] = d
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
