package postgres_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// The role that serves, and does not own the tables, sees the mark that the owner set, and is
// refused because of it.
func TestRelocationByAnotherRole(t *testing.T) {
	s := seenBy(t, false, "")
	owner := open(t, postgres.Config{URL: core.Secret(pgtest.Shared(t).URL(s.owner, databaseName(s.url)))})
	mark := relocation.Mark{CopyID: "copy", Role: relocation.Source, Phase: relocation.Moved, Peer: "there"}
	if err := owner.SetRelocationMark(t.Context(), relocation.Mark{}, mark); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Store.RelocationMark(t.Context()); err != nil || m.Phase != relocation.Moved {
		t.Errorf("the mark is %+v, %v", m, err)
	}
	if _, err := s.Store.Delete(t.Context(), 1, "server"); !errors.Is(err, core.ErrStoreUnavailable) || store.CauseOf(err) != store.Relocated {
		t.Errorf("a disconnect: %v, of the cause %q", err, store.CauseOf(err))
	}
	findings, err := s.Store.Examine(t.Context())
	if err != nil || !slices.ContainsFunc(findings, func(f store.Finding) bool { return f.Condition == store.InRelocation }) {
		t.Errorf("it finds %+v, %v", findings, err)
	}
	if err := owner.SetRelocationMark(t.Context(), mark, relocation.Mark{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Store.Delete(t.Context(), 1, "server"); err != nil {
		t.Errorf("a disconnect afterwards: %v", err)
	}
}
