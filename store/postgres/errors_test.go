package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

func TestFailuresAreToldApart(t *testing.T) {
	report := func(code string) error { return &pgconn.PgError{Code: code, Message: "the message"} }
	unavailable := []error{
		context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF, &net.OpError{Op: "read", Err: io.EOF},
		report("57P01"), report("57P03"), report("57014"), report("53300"), report("53100"), report("08006"), report("25006"),
		report("28P01"), report("3D000"), report("40001"), report("40P01"), report("55P03"), report("58030"), report("42P01"), report("42883"), report("3F000"),
	}
	for _, err := range unavailable {
		if got := failure("writing", fmt.Errorf("wrapped: %w", err)); !errors.Is(got, core.ErrStoreUnavailable) {
			t.Errorf("%v: %v, want core.ErrStoreUnavailable", err, got)
		}
	}
	for _, err := range []error{report("42501"), report("23505"), report("22001"), report(""), errors.New("another"), keyring.ErrConflict} {
		got := failure("writing", err)
		if got == nil || errors.Is(got, core.ErrStoreUnavailable) {
			t.Errorf("%v: %v, want no core.ErrStoreUnavailable", err, got)
		}
	}
	if got := failure("writing", keyring.ErrConflict); !errors.Is(got, keyring.ErrConflict) {
		t.Errorf("a sentinel is lost: %v", got)
	}
	if got := failure("writing", nil); got != nil {
		t.Errorf("nothing failed: %v", got)
	}
}

func TestFailuresHoldNoValues(t *testing.T) {
	for _, code := range []string{"23514", "22001", "22P02", "42P01", "P0001", "57P01"} {
		err := &pgconn.PgError{
			Code: code, Detail: "Failing row contains (secret).", Where: "secret", InternalQuery: "secret", Hint: "secret",
			ConstraintName: "lockwood_refresh_token_enc_format_1",
		}
		if strings.HasPrefix(code, "22") || strings.HasPrefix(code, "P0") {
			err.Message = `invalid input: "secret"`
		}
		got := failure("writing", err)
		if text := fmt.Sprintf("%+v %#v", got, got); strings.Contains(text, "secret") {
			t.Errorf("%s: %s", code, text)
		}
		if _, ok := errors.AsType[*pgconn.PgError](got); ok {
			t.Errorf("%s: the server's whole report can be had from the error", code)
		}
		if (code == "23514") != errors.Is(got, store.ErrLegacyClosed) {
			t.Errorf("%s: %v", code, got)
		}
	}
}

// What is not an answer that the statement was rolled back leaves it open whether it
// took effect.
func TestOutcomesAreToldApart(t *testing.T) {
	report := func(severity, code string) error {
		return &pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: severity, Code: code, Message: "the message"}
	}
	for name, err := range map[string]error{
		"constraint": report("ERROR", "23505"), "rights": report("ERROR", "42501"), "statement_timeout": report("ERROR", "57014"),
		"deadlock": report("ERROR", "40P01"), "serialization": report("ERROR", "40001"), "read-only": report("ERROR", "25006"),
		"disk full": report("ERROR", "53100"), "quota": report("ERROR", "LW001"), "not sent": notSentError{},
		"no such prepared statement": report("ERROR", "26000"), "a prepared statement of that name": report("ERROR", "42P05"),
		"no such prepared statement at PgBouncer": &pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: "prepared statement did not exist"},
		"another result":            &pgconn.PgError{Severity: "ERROR", Code: "0A000", Routine: "RevalidateCachedQuery"},
		"another number of columns": &pgconn.PgError{Severity: "ERROR", Code: "08P01", Routine: "PortalSetResultFormat"},
	} {
		if got := failure("writing", unlessDefinite(fmt.Errorf("wrapped: %w", err))); got == nil || errors.Is(got, core.ErrOutcomeUnknown) {
			t.Errorf("%s: %v, want no core.ErrOutcomeUnknown", name, got)
		}
	}
	for name, err := range map[string]error{
		"terminated": report("FATAL", "57P01"), "crashed": report("FATAL", "57P02"), "a pooler's": report("FATAL", "08P01"),
		"not as FATAL": report("ERROR", "08006"), "says so": report("ERROR", "40003"), "PANIC": report("PANIC", "XX000"),
		"no severity": &pgconn.PgError{Code: "23505"}, "reset": &net.OpError{Op: "read", Err: io.EOF}, "EOF": io.ErrUnexpectedEOF,
		"late": context.DeadlineExceeded, "another": errors.New("another"),
	} {
		got := failure("writing", unlessDefinite(fmt.Errorf("wrapped: %w", err)))
		if !errors.Is(got, core.ErrOutcomeUnknown) || !errors.Is(got, core.ErrStoreUnavailable) {
			t.Errorf("%s: %v, want core.ErrOutcomeUnknown", name, got)
		}
		if _, ok := errors.AsType[*pgconn.PgError](got); ok {
			t.Errorf("%s: the server's whole report can be had from the error", name)
		}
	}
	if err := unlessDefinite(nil); err != nil {
		t.Error(err)
	}
	if got := failure("writing", report("ERROR", "LW001")); !errors.Is(got, credential.ErrQuotaExceeded) || errors.Is(got, core.ErrStoreUnavailable) {
		t.Errorf("the quota: %v, want credential.ErrQuotaExceeded", got)
	}
}

// notSentError is as pgconn's errors of a statement that did not leave.
type notSentError struct{}

func (notSentError) Error() string     { return "not sent" }
func (notSentError) SafeToRetry() bool { return true }
