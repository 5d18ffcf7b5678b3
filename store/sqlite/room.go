package sqlite

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/lockwood-kms/lockwood/store"
)

// minRoom is how many bytes a file system should have left for a database: the
// write-ahead log of a re-seal grows to some of it.
const minRoom = 64 << 20

// examineRoom asks how much room the file system has left, where that can be known.
func (s *Store) examineRoom() []store.Finding {
	info, err := os.Stat(s.path)
	if err != nil {
		return nil
	}
	free, ok := room(filepath.Dir(s.path))
	if !ok || free >= neededRoom(info.Size()) {
		return nil
	}
	return []store.Finding{{Condition: store.LittleRoom, Object: s.path, Detail: fmt.Sprintf("%d MiB", free>>20)}}
}

// neededRoom is how many bytes a database of so many bytes should find left: twice its
// size, which rewriting it takes.
func neededRoom(size int64) int64 { return max(minRoom, 2*size) }
