// Package providertest is what every key provider has to do, as a list of checks.
// The list is data, so that the tests of a provider and the command line, which
// asks a provider of a live deployment, run the same one; a new provider adds a
// Harness and no tests. It exists because the ring above relies on every word of
// core.KeyProvider: a wrap that ignores its aad, or a refusal reported as an
// outage, would go unnoticed until it matters.
//
// A check needs a Subject: the provider, and hooks by which a fault can be brought
// about. What a subject has no hook for is reported as not applicable, with the
// reason, and never silently left out.
//
// The package does not import testing, so that a program can link it.
package providertest
