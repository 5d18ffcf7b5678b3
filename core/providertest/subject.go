package providertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// Fault brings about a condition, and returns what ends it. It fails if it could
// not.
type Fault func(ctx context.Context) (restore func(), err error)

// Hook names an optional part of a Subject.
type Hook string

// The hooks that a Subject may lack.
const (
	HookForeign     Hook = "Foreign"
	HookDeny        Hook = "Deny"
	HookUnavailable Hook = "Unavailable"
	HookMissing     Hook = "Missing"
	HookRotate      Hook = "Rotate"
	HookRestart     Hook = "Restart"
	HookLenient     Hook = "Lenient"
)

// Subject is a provider under examination. A check may close the provider, so each
// check is given a new one. Everything but Provider is optional.
type Subject struct {
	Provider core.KeyProvider

	// Foreign is a provider of the same kind and another key.
	Foreign core.KeyProvider
	// Deny makes the KEK refuse: a right withdrawn, a key disabled.
	Deny Fault
	// Unavailable makes the KEK give no answer.
	Unavailable Fault
	// Missing takes the key's configuration away.
	Missing Fault
	// Rotate makes a new version of the KEK the current one.
	Rotate func(ctx context.Context) error
	// Restart returns another provider of the same key, as a new process has.
	Restart func(ctx context.Context) (core.KeyProvider, error)
	// Lenient makes the service do what it should refuse or fail to do, until restore is
	// called. It returns ErrNotApplicable for what cannot be brought about.
	Lenient func(ctx context.Context, l Leniency) (restore func(), err error)

	// Lacks says for each hook that is nil why there cannot be one.
	Lacks map[Hook]string
	// Patience is how long a cancelled call may take to return; zero means 10 s.
	Patience time.Duration
}

// ErrNotApplicable is what a check returns if the subject lacks the hook it needs;
// the error's text says which, and why.
var ErrNotApplicable = errors.New("not applicable")

// need returns ErrNotApplicable if a hook is absent.
func (s *Subject) need(h Hook, present bool) error {
	if present {
		return nil
	}
	reason := s.Lacks[h]
	if reason == "" {
		reason = "no reason is given"
	}
	return fmt.Errorf("%w: needs the hook %s: %s", ErrNotApplicable, h, reason)
}

// unexplained returns the hooks that the subject lacks without a reason.
func (s *Subject) unexplained() []Hook {
	present := map[Hook]bool{
		HookForeign: s.Foreign != nil, HookDeny: s.Deny != nil, HookUnavailable: s.Unavailable != nil,
		HookMissing: s.Missing != nil, HookRotate: s.Rotate != nil, HookRestart: s.Restart != nil,
		HookLenient: s.Lenient != nil,
	}
	var hooks []Hook
	for h, ok := range present {
		if !ok && s.Lacks[h] == "" {
			hooks = append(hooks, h)
		}
	}
	return hooks
}

func (s *Subject) patience() time.Duration {
	if s.Patience == 0 {
		return 10 * time.Second
	}
	return s.Patience
}
