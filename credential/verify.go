package credential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// verifyPage is how many rows Verify reads at a time.
const verifyPage = 500

// Report is what Verify found. A record that opens is OK; of these, Stale are not
// sealed under the primary data key, and of these again Legacy are in the legacy
// format.
type Report struct {
	Credentials int64     `json:"credentials"`
	Records     int64     `json:"records"`
	OK          int64     `json:"ok"`
	Legacy      int64     `json:"legacy"`
	Stale       int64     `json:"stale"`
	Failed      []Failure `json:"failed"`
	// LegacyKeys says how many of the legacy records opened under which key, if
	// VerifyOptions.LegacyKey was given.
	LegacyKeys []LegacyKey `json:"legacy_keys,omitempty"`
}

// LegacyKey is a key that opens legacy records.
type LegacyKey struct {
	KEKID   core.KEKID `json:"kek_id"` // empty for one that has none
	Current bool       `json:"current"`
	Records int64      `json:"records"`
}

// Failure names a record that does not open.
type Failure struct {
	ID     int64  `json:"id"` // of the row
	Column string `json:"column"`
	Reason string `json:"reason"`
	// KeyID is the data key that the record names, "" for a legacy record.
	KeyID string `json:"key_id,omitempty"`
}

// VerifyOptions are the optional settings of Verify.
type VerifyOptions struct {
	// Workers is how many rows are opened at the same time; by default, one for
	// each processor.
	Workers int
	// MostFailed is how many records that do not open are named; zero is all. There are
	// Report.Records less Report.OK of them.
	MostFailed int
	// Progress is called with the number of rows read since the last call, from
	// one goroutine.
	Progress func(rows int)
	// LegacyKey names the key under which a legacy record that opened does, and says
	// whether it is the current one. Nil leaves Report.LegacyKeys empty. It is called
	// from many goroutines.
	LegacyKey func(record []byte) (id core.KEKID, current, ok bool)
}

// Verify opens every record of every credential and returns what it found, the
// failures by row ID. It changes nothing and keeps no plaintext. An error means
// that the question could not be answered to the end: the database or the key
// provider did not answer, or there is no key at all.
func (s *Service) Verify(ctx context.Context, opts *VerifyOptions) (*Report, error) {
	if opts == nil {
		opts = &VerifyOptions{}
	}
	pages := make(chan []Row, 2)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(pages)
		return s.readPages(ctx, pages, opts.Progress)
	})
	total := &Report{Failed: []Failure{}}
	var mu sync.Mutex
	for range cmp.Or(opts.Workers, runtime.GOMAXPROCS(0)) {
		group.Go(func() error {
			for page := range pages {
				part, err := s.verifyRows(ctx, page, opts)
				if err != nil {
					return err
				}
				mu.Lock()
				total.add(part, opts.MostFailed)
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("verifying credentials: %w", err)
	}
	slices.SortFunc(total.Failed, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Column, b.Column))
	})
	slices.SortFunc(total.LegacyKeys, func(a, b LegacyKey) int { // the current one first
		switch {
		case a.Current:
			return -1
		case b.Current:
			return 1
		}
		return cmp.Compare(a.KEKID, b.KEKID)
	})
	return total, nil
}

func (s *Service) readPages(ctx context.Context, pages chan<- []Row, progress func(int)) error {
	for after := int64(-1 << 63); ; {
		page, err := s.store.Scan(ctx, after, verifyPage)
		if err != nil || len(page) == 0 {
			return err
		}
		select {
		case pages <- page:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if progress != nil {
			progress(len(page))
		}
		after = page[len(page)-1].ID
	}
}

func (s *Service) verifyRows(ctx context.Context, rows []Row, opts *VerifyOptions) (*Report, error) {
	report := &Report{Credentials: int64(len(rows))}
	if err := s.Expect(ctx, rows); err != nil {
		return nil, err
	}
	for i := range rows {
		for _, column := range EncryptedColumns() {
			record := rows[i].Record(column.Name)
			if record == nil {
				continue
			}
			report.Records++
			_, stale, err := s.OpenRecord(ctx, &rows[i], column.Name)
			if reason := FailureReason(err); reason != "" {
				if s.boundToOtherBytes(ctx, &rows[i], column.Name, err) {
					reason = otherBytes
				}
				failure := Failure{ID: rows[i].ID, Column: column.Name, Reason: reason}
				if id, sealed := envelope.ParseHeader(record); sealed {
					failure.KeyID = id.String()
				}
				report.Failed = append(report.Failed, failure)
				continue
			}
			if err != nil {
				return nil, err
			}
			report.OK++
			if _, sealed := envelope.ParseHeader(record); !sealed {
				report.Legacy++
				report.note(record, opts)
			}
			if stale {
				report.Stale++
			}
		}
	}
	return report, nil
}

// FailureReason says why a record does not open, if that is what err, of
// Service.OpenRecord or Service.Reseal, means. Otherwise, as when a provider does
// not answer, it returns "".
func FailureReason(err error) string {
	switch {
	case errors.Is(err, keyring.ErrNoLegacyKey):
		return "a legacy record, and no env key is configured: configure the one it was written with"
	case errors.Is(err, core.ErrInvalidCiphertext):
		return "does not open: altered, moved from another row, or sealed under a key that is not configured"
	case errors.Is(err, core.ErrKeyMismatch):
		return "no configured key unwraps its data key"
	case errors.Is(err, envelope.ErrNUL):
		return "a column that it is bound to holds a NUL character"
	}
	return ""
}

// note counts the key under which a legacy record opened.
func (r *Report) note(record []byte, opts *VerifyOptions) {
	if opts.LegacyKey == nil {
		return
	}
	if id, current, ok := opts.LegacyKey(record); ok {
		r.count(LegacyKey{id, current, 1})
	}
}

func (r *Report) count(k LegacyKey) {
	i := slices.IndexFunc(r.LegacyKeys, func(has LegacyKey) bool { return has.KEKID == k.KEKID && has.Current == k.Current })
	if i < 0 {
		r.LegacyKeys = append(r.LegacyKeys, k)
		return
	}
	r.LegacyKeys[i].Records += k.Records
}

func (r *Report) add(part *Report, mostFailed int) {
	r.Credentials += part.Credentials
	r.Records += part.Records
	r.OK += part.OK
	r.Legacy += part.Legacy
	r.Stale += part.Stale
	if r.Failed = append(r.Failed, part.Failed...); mostFailed > 0 {
		r.Failed = r.Failed[:min(len(r.Failed), mostFailed)]
	}
	for _, k := range part.LegacyKeys {
		r.count(k)
	}
}
