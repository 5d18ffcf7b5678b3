package remote

import (
	"errors"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
)

// Answer is what an answer of a service, or its absence, means to the ring.
type Answer struct {
	// Means is a sentinel of package core; nil stands for having to look closer.
	Means error
	// Login says that the credentials were refused, not their owner: they may have been
	// renewed since, so Login.Call gets others once before it is believed.
	Login bool
	// Permission says that a right is missing, which can be named.
	Permission bool
	// Remedy tells the operator what it is and what to do.
	Remedy string
}

// Denied is the answer that the key may not be used.
func Denied(remedy string) Answer { return Answer{Means: core.ErrKeyDenied, Remedy: remedy} }

// Unavailable is no answer, or one that decides nothing.
func Unavailable(remedy string) Answer { return Answer{Means: core.ErrUnavailable, Remedy: remedy} }

// Refused is Denied for credentials that may be replaced by better ones.
func Refused(remedy string) Answer {
	return Answer{Means: core.ErrKeyDenied, Login: true, Remedy: remedy}
}

// Lacking is the answer that the identity lacks a right.
func Lacking() Answer { return Answer{Means: core.ErrKeyDenied, Permission: true} }

// Meaning is an Answer and the codes that have it.
type Meaning[Code comparable] struct {
	Answer
	Codes []Code
}

// Means returns the Meaning of codes.
func Means[Code comparable](a Answer, codes ...Code) Meaning[Code] { return Meaning[Code]{a, codes} }

// Answers returns the table of what each code means. It panics if one has two meanings.
func Answers[Code comparable](meanings ...Meaning[Code]) map[Code]Answer {
	table := make(map[Code]Answer)
	for _, m := range meanings {
		for _, code := range m.Codes {
			if _, ok := table[code]; ok {
				panic(fmt.Sprintf("the code %v has two meanings", code))
			}
			table[code] = m.Answer
		}
	}
	return table
}

// ServiceError is an error of a service in words of a provider's own. It wraps a sentinel
// and nothing of the SDK's, whose errors may quote the request, a token, or what a server
// sent.
type ServiceError struct {
	Answer
	Service, Operation, Code string
	Text                     string
}

// Error implements error.
func (f *ServiceError) Error() string { return f.Text }

// Unwrap returns the sentinel.
func (f *ServiceError) Unwrap() error { return f.Means }

// ServiceErrorOf returns the ServiceError in err. It is not ok if there is none; then it
// returns an empty one.
func ServiceErrorOf(err error) (f *ServiceError, ok bool) {
	if f, ok = errors.AsType[*ServiceError](err); ok {
		return f, true
	}
	return &ServiceError{}, false
}
