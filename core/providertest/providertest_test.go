package providertest_test

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core/providertest"
)

// A provider that does everything right passes, with every check applicable.
func TestRightProviderPasses(t *testing.T) {
	for _, c := range providertest.Checks() {
		s, _ := subject()
		if err := c.Run(t.Context(), s); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// Run, as the tests of a provider call it.
func TestRun(t *testing.T) {
	ran := 0
	providertest.Run(t, func(*testing.T) *providertest.Subject {
		ran++
		s, _ := subject()
		return s
	})
	if ran != len(providertest.Checks()) {
		t.Errorf("harness was asked for %d subjects, want one for each of %d checks", ran, len(providertest.Checks()))
	}
}

// Each flaw is noticed by its check, and each check notices one.
func TestEachCheckNoticesItsFlaw(t *testing.T) {
	untested := map[string]providertest.Check{}
	checks := map[string]providertest.Check{}
	for _, c := range providertest.Checks() {
		untested[c.Name], checks[c.Name] = c, c
	}
	for _, fl := range flaws {
		t.Run(fl.check+"/"+strings.ReplaceAll(fl.name, " ", "-"), func(t *testing.T) {
			c, ok := checks[fl.check]
			if !ok {
				t.Fatal("there is no such check")
			}
			delete(untested, fl.check)
			s, m := subject()
			f := &flawed{memory: m}
			s.Provider = f
			fl.apply(f, s)
			err := c.Run(t.Context(), s)
			if err == nil {
				t.Fatal("the check passed")
			}
			if errors.Is(err, providertest.ErrNotApplicable) {
				t.Fatalf("the check was not applied: %v", err)
			}
		})
	}
	for name := range untested {
		t.Errorf("no flaw shows that the check %s can fail", name)
	}
}

// What cannot be brought about is said, with the reason.
func TestNotApplicable(t *testing.T) {
	byHook := map[string]providertest.Hook{
		"foreign-wrap-refused": providertest.HookForeign,
		"denied":               providertest.HookDeny,
		"unavailable":          providertest.HookUnavailable,
		"missing":              providertest.HookMissing,
		"rotated":              providertest.HookRotate,
		"restarted":            providertest.HookRestart,

		"empty-wrap-refused": providertest.HookLenient, "other-wrap-refused": providertest.HookLenient,
		"short-wrap-refused": providertest.HookLenient, "elsewhere-wrap-refused": providertest.HookLenient,
		"unauthenticated-service-refused": providertest.HookLenient, "unbound-service-refused": providertest.HookLenient,
	}
	for _, c := range providertest.Checks() {
		full, _ := subject()
		bare := &providertest.Subject{Provider: full.Provider, Lacks: map[providertest.Hook]string{}}
		hook, optional := byHook[c.Name]
		if optional {
			bare.Lacks[hook] = "because of the moon"
		}
		err := c.Run(t.Context(), bare)
		switch {
		case !optional && err != nil:
			t.Errorf("%s without hooks: %v", c.Name, err)
		case optional && !errors.Is(err, providertest.ErrNotApplicable):
			t.Errorf("%s without its hook: %v, want ErrNotApplicable", c.Name, err)
		case optional && !strings.Contains(err.Error(), string(hook)+": because of the moon"):
			t.Errorf("%s: %q names neither the hook nor the reason", c.Name, err)
		}
	}
}

// recorder stands in for *testing.T, to see Run fail.
type recorder struct {
	ctx    context.Context
	failed *bool
}

type fatal struct{}

func (r recorder) Helper()                  {}
func (r recorder) Context() context.Context { return r.ctx }
func (r recorder) Logf(string, ...any)      {}
func (r recorder) Fatalf(string, ...any) {
	*r.failed = true
	panic(fatal{})
}

func (r recorder) Run(_ string, f func(recorder)) bool {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(fatal); !ok {
				panic(p)
			}
		}
	}()
	f(r)
	return !*r.failed
}

func TestRunFails(t *testing.T) {
	for name, harness := range map[string]func(recorder) *providertest.Subject{
		"on a hook without a reason": func(recorder) *providertest.Subject {
			s, _ := subject()
			s.Deny = nil
			return s
		},
		"on a flaw": func(recorder) *providertest.Subject {
			s, m := subject()
			f := &flawed{memory: m}
			statusHealthy(f, s)
			s.Provider = f
			return s
		},
	} {
		failed := false
		providertest.Run(recorder{t.Context(), &failed}, harness)
		if !failed {
			t.Errorf("%s: Run passed", name)
		}
	}
}

// The command line prints names and docs, and links the package.
func TestPresentable(t *testing.T) {
	kebab := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := map[string]bool{}
	for _, c := range providertest.Checks() {
		if !kebab.MatchString(c.Name) || seen[c.Name] || !strings.HasSuffix(c.Doc, ".") {
			t.Errorf("%q: name not in kebab case or not unique, or doc not a sentence: %q", c.Name, c.Doc)
		}
		seen[c.Name] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("listing source files: %v, %v", files, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range f.Imports {
			if imp.Path.Value == `"testing"` {
				t.Errorf("%s imports testing", name)
			}
		}
	}
}
