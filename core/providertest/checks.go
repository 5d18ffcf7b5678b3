package providertest

import "context"

// Check is one thing that a provider has to do.
type Check struct {
	// Name is short, stable and in kebab case.
	Name string
	// Doc says in a sentence what is checked.
	Doc string
	// Run returns nil if the subject does it, ErrNotApplicable if that cannot be
	// told of it, and otherwise what it did instead. The error holds no key.
	Run func(ctx context.Context, s *Subject) error
}

// Checks returns the checks, in the order in which a reader wants their results.
func Checks() []Check {
	var all []Check
	for _, group := range [][]Check{basicChecks, forgeryChecks, ownershipChecks, lifeChecks, faultChecks, lenientChecks} {
		all = append(all, group...)
	}
	return all
}
