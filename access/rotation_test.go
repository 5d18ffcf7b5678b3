package access_test

import (
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/rotation"
)

func rotationRun(target envelope.KeyID) rotation.Run { return rotation.Run{ID: "run", Target: target} }

func rotationBatch(under envelope.KeyID, old, fresh *credential.Row) rotation.Batch {
	return rotation.Batch{RunID: "run", Under: under, Rows: []rotation.Replacement{{Old: old, New: fresh}}}
}
