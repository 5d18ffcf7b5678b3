package postgres

import (
	"log/slog"

	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/rotation/queue"
)

// Queue implements store.Store.
func (s *Store) Queue(log *slog.Logger) rotation.Queue {
	return queue.New(riverpgxv5.New(s.pool), queue.Options{Schema: s.schema, Logger: log})
}
