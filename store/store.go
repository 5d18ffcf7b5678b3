// Package store is what the databases of Lockwood have in common: the one
// interface that package sqlite and package postgres satisfy, so that a program
// chooses between them by configuration and storetest holds both to the same
// behaviour. The interface is the sum of what the domain asks for (the ring, the
// credentials, the access tokens, the instances) and of what only a database has: a schema to
// migrate, a connection to check and to close.
//
// A store keeps ciphertexts and metadata. It opens nothing, knows no key, and
// passes every ciphertext to the database as a parameter, never inside a
// statement, so that logged statements hold none.
package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/afresh"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/rotation"
)

// ErrLegacyClosed means that a legacy record was to be written to a store that
// refuses them. See MigrateOptions.
var ErrLegacyClosed = errors.New("the store is closed to legacy records")

// Store is one database. It is safe for concurrent use, also by many instances
// on the same database.
//
// Errors name what was being done and what the database calls the failure. They
// never hold a connection string, a value of a row, or bytes of a record.
type Store interface {
	keyring.Store
	credential.Store
	access.Store
	access.UpkeepStore
	fleet.Store
	rotation.Store
	afresh.Store
	relocation.Store

	// Queue returns the queue of ranges to re-seal. It logs to log what it does.
	Queue(log *slog.Logger) rotation.Queue

	// Migrate brings the schema up to date. Once it is, further calls only read,
	// and need no more rights than the other methods. Many instances may call it
	// at once.
	Migrate(ctx context.Context, opts MigrateOptions) error

	// Ping returns core.ErrStoreUnavailable unless the database answers.
	Ping(ctx context.Context) error

	// Examine returns which conditions the database does not fulfil, and none if it is
	// as it should be. It writes nothing, and works whether migrated or not.
	Examine(ctx context.Context) ([]Finding, error)

	// BinaryColumns returns every binary column of the live schema, in order of
	// table and column: what credential.EncryptedColumns is checked against.
	BinaryColumns(ctx context.Context) ([]credential.Column, error)

	// Close releases the connections. Other methods fail after it.
	Close()
}

// MigrateOptions are the choices that are made once, when the schema is first
// laid down.
type MigrateOptions struct {
	// WriteLegacy says that the service writes legacy records, so a credential
	// table that is made now has to take them. Otherwise one that is made now
	// refuses them; a table that was there before is left as it is and stays
	// open to them.
	WriteLegacy bool
	// StoreID is the ID of a store that is made now, instead of a new random one: that of
	// the store which is copied here. It is of letters, digits and '-', at most 64.
	StoreID string
	// Logger, if not nil, is told what a migration waits for that takes long.
	Logger *slog.Logger
}

// RingRevision returns keyring.State.Revision: of a store, the number that it keeps, or ""
// for zero, where it keeps none.
func RingRevision(storeID string, number int64) string {
	if number == 0 {
		return ""
	}
	return storeID + "/" + strconv.FormatInt(number, 10)
}

// CheckCompromised returns core.ErrUnavailable if the store holds more compromised keys
// than keyring.Store.LoadRing may return.
func CheckCompromised(keys int) error {
	if keys <= keyring.MaxCompromised {
		return nil
	}
	return fmt.Errorf("the table lockwood_compromised holds more than %d keys, which no operator named; find out who wrote them: %w", keyring.MaxCompromised, core.ErrUnavailable)
}

// CheckRingSize returns core.ErrUnavailable if the tables of the ring hold more than
// keyring.Store.LoadRing may return: lines of data keys with a wrap each, and bytes of
// all wraps.
func CheckRingSize(lines int, wrapBytes int64) error {
	if lines <= keyring.MaxWraps && wrapBytes <= keyring.MaxWrapBytes {
		return nil
	}
	return fmt.Errorf("the tables lockwood_data_keys and lockwood_data_key_wraps hold more than %d rows, or more than %d bytes of wraps; "+
		"a ring has a few, so find out who wrote them: %w", keyring.MaxWraps, keyring.MaxWrapBytes, core.ErrUnavailable)
}

var storeIDPattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// NewID returns the ID of a store that is made now. It is rendered into SQL, so nothing
// but the pattern of StoreID passes.
func (o MigrateOptions) NewID() (string, error) {
	switch {
	case o.StoreID == "":
		return rand.Text(), nil
	case !storeIDPattern.MatchString(o.StoreID):
		return "", fmt.Errorf("the store ID must match %s", storeIDPattern)
	}
	return o.StoreID, nil
}
