package providertest

import (
	"context"
	"errors"
)

// T is the part of *testing.T that Run needs; Self is *testing.T itself. Named so,
// this package need not import testing.
type T[Self any] interface {
	Helper()
	Context() context.Context
	Run(name string, f func(Self)) bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Run runs every check as a subtest, each on a new subject from harness. A check
// that is not applicable is logged with its reason; a hook that is absent without a
// reason fails the test.
func Run[Self T[Self]](t Self, harness func(t Self) *Subject) {
	t.Helper()
	for _, c := range Checks() {
		t.Run(c.Name, func(t Self) {
			t.Helper()
			s := harness(t)
			if hooks := s.unexplained(); len(hooks) > 0 {
				t.Fatalf("the subject lacks the hooks %v without a reason in Lacks", hooks)
			}
			err := c.Run(t.Context(), s)
			switch {
			case errors.Is(err, ErrNotApplicable):
				t.Logf("%v", err)
			case err != nil:
				t.Fatalf("%s\n\t%v", c.Doc, err)
			}
		})
	}
}
