package credential

import (
	"context"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// Reseal opens every record of row and seals it anew, as a deposit would now. It
// returns a copy of row with the new records, and the data key that sealed them,
// zero if they are legacy. It writes nothing.
//
// The errors are those of OpenRecord, which FailureReason tells apart, and of the
// ring's Seal. A row whose records were legacy is thereby bound to the endpoint
// and the client that it has now, whoever wrote them there.
func (s *Service) Reseal(ctx context.Context, row *Row) (*Row, envelope.KeyID, error) {
	plaintexts := make(map[string][]byte, 2)
	defer func() {
		for _, p := range plaintexts {
			clear(p)
		}
	}()
	for _, c := range EncryptedColumns() {
		if row.Record(c.Name) == nil {
			continue
		}
		plaintext, _, err := s.OpenRecord(ctx, row, c.Name)
		if err != nil {
			return nil, envelope.KeyID{}, err
		}
		plaintexts[c.Name] = plaintext
	}
	fresh := *row
	buf := aadBuffers.Get().(*[]byte)
	defer aadBuffers.Put(buf)
	for range sealAttempts {
		under, same, err := s.sealAll(ctx, buf, &fresh, plaintexts)
		if err != nil || same {
			return &fresh, under, err
		}
	}
	return nil, envelope.KeyID{}, fmt.Errorf("the ring keeps rolling: %w", core.ErrUnavailable)
}

// sealAll seals plaintexts, by column, into row. same is false if the ring rolled
// in between, so that the records are not all under the data key that is returned.
func (s *Service) sealAll(ctx context.Context, buf *[]byte, row *Row, plaintexts map[string][]byte) (under envelope.KeyID, same bool, err error) {
	sealed := 0
	for _, c := range EncryptedColumns() {
		plaintext, ok := plaintexts[c.Name]
		if !ok {
			continue
		}
		record, err := s.sealColumn(ctx, buf, row, c.Name, plaintext)
		if err != nil {
			return envelope.KeyID{}, false, err
		}
		row.setRecord(c.Name, record)
		id, _ := envelope.ParseHeader(record)
		if sealed++; sealed > 1 && id != under {
			return under, false, nil
		}
		under = id
	}
	return under, true, nil
}

func (r *Row) setRecord(column string, record []byte) {
	switch column {
	case RefreshTokenColumn:
		r.RefreshTokenEnc = record
	case ClientSecretColumn:
		r.ClientSecretEnc = record
	}
}
