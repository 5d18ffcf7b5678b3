package sqlite

import (
	"log/slog"

	"github.com/riverqueue/river/riverdriver/riversqlite"

	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/rotation/queue"
)

// Queue implements store.Store. It has a connection of its own.
func (s *Store) Queue(log *slog.Logger) rotation.Queue {
	return queue.New(riversqlite.New(s.jobs), queue.Options{Logger: log})
}
