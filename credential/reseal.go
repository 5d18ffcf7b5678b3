package credential

import (
	"context"
	"fmt"
	"sync"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// resealBuffers holds what Reseal works in. Plaintexts are cleared before they come
// back.
var resealBuffers = sync.Pool{New: func() any { return new(resealBuffer) }}

type resealBuffer struct{ aad, plaintext []byte }

// Reseal opens every record of row and seals it anew, as a deposit would now. It
// returns a copy of row with the new records, and the data key that sealed them,
// zero if they are legacy. It writes nothing.
//
// The errors are those of OpenRecord, which FailureReason tells apart, and of the
// ring's Seal. A row whose records were legacy is thereby bound to the endpoint
// and the client that it has now, whoever wrote them there.
func (s *Service) Reseal(ctx context.Context, row *Row) (*Row, envelope.KeyID, error) {
	buf := resealBuffers.Get().(*resealBuffer)
	defer resealBuffers.Put(buf)
	fresh := *row
	for range sealAttempts {
		under, same, err := s.resealRecords(ctx, buf, row, &fresh)
		if err != nil {
			return nil, envelope.KeyID{}, err
		}
		if same {
			return &fresh, under, nil
		}
	}
	return nil, envelope.KeyID{}, fmt.Errorf("the ring keeps rolling: %w", core.ErrUnavailable)
}

// resealRecords seals the records of row anew into fresh. same is false if the ring
// rolled in between, so that they are not all under the data key that is returned.
func (s *Service) resealRecords(ctx context.Context, buf *resealBuffer, row, fresh *Row) (under envelope.KeyID, same bool, err error) {
	sealed := 0
	for _, c := range encryptedColumns {
		old := row.Record(c.Name)
		if old == nil {
			continue
		}
		record, err := s.resealRecord(ctx, buf, row, c.Name, old)
		if err != nil {
			return envelope.KeyID{}, false, err
		}
		fresh.setRecord(c.Name, record)
		id, _ := envelope.ParseHeader(record)
		if sealed++; sealed > 1 && id != under {
			return under, false, nil
		}
		under = id
	}
	return under, true, nil
}

// resealRecord seals one record anew. What it is bound to stays the same, so one aad
// serves to open and to seal.
func (s *Service) resealRecord(ctx context.Context, buf *resealBuffer, row *Row, column string, old []byte) (record []byte, err error) {
	if buf.aad, err = AppendAAD(buf.aad, column, row.UserID, &row.Metadata); err != nil {
		return nil, &RecordError{Column: column, Err: err}
	}
	buf.plaintext, _, err = s.ring.Open(ctx, buf.plaintext[:0], old, buf.aad)
	defer func() { clear(buf.plaintext) }()
	if err != nil {
		return nil, &RecordError{Column: column, Err: err}
	}
	return s.ring.Seal(ctx, make([]byte, 0, len(buf.plaintext)+envelope.Overhead), buf.plaintext, buf.aad)
}

func (r *Row) setRecord(column string, record []byte) {
	switch column {
	case RefreshTokenColumn:
		r.RefreshTokenEnc = record
	case ClientSecretColumn:
		r.ClientSecretEnc = record
	}
}
