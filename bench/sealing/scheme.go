package sealing

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/lockwood-kms/lockwood/bench/measure"
)

// scheme is one way to seal.
type scheme struct {
	name string
	// prepare returns functions that seal plaintext and open what that gave,
	// bound to aad, with buffers that are used by one goroutine.
	prepare func(plaintext, aad []byte) (seal func() error, open func() ([]byte, error), err error)
}

// maxOverhead bounds by how much a record is longer than its plaintext, in bytes.
const maxOverhead = 256

// appending is a scheme that appends to a buffer, which is reused.
func appending(name string, seal func(dst, plaintext, aad []byte) ([]byte, error), open func(dst, record, aad []byte) ([]byte, error)) scheme {
	return scheme{name, func(plaintext, aad []byte) (func() error, func() ([]byte, error), error) {
		buf := make([]byte, 0, len(plaintext)+maxOverhead)
		out := make([]byte, 0, len(plaintext)+maxOverhead)
		record, err := seal(nil, plaintext, aad)
		if err != nil {
			return nil, nil, err
		}
		return func() error {
				_, err := seal(buf, plaintext, aad)
				return err
			}, func() ([]byte, error) {
				return open(out, record, aad)
			}, nil
	}}
}

// allocating is a scheme that returns new memory every time.
func allocating(name string, seal, open func(in, aad []byte) ([]byte, error)) scheme {
	return scheme{name, func(plaintext, aad []byte) (func() error, func() ([]byte, error), error) {
		record, err := seal(plaintext, aad)
		if err != nil {
			return nil, nil, err
		}
		return func() error {
				_, err := seal(plaintext, aad)
				return err
			}, func() ([]byte, error) {
				return open(record, aad)
			}, nil
	}}
}

// operation is what is measured: sealing or opening a plaintext of a size.
type operation struct {
	open bool
	size int
}

var operations = []operation{{false, 64}, {false, 1 << 10}, {false, 16 << 10}, {true, 64}, {true, 1 << 10}, {true, 16 << 10}}

func (o operation) String() string {
	verb, size := "seal", fmt.Sprintf("%d B", o.size)
	if o.open {
		verb = "open"
	}
	if o.size >= 1<<10 {
		size = fmt.Sprintf("%d KiB", o.size>>10)
	}
	return verb + " " + size
}

// work returns the operation by s, once it is seen that what s seals it opens.
func (o operation) work(s scheme, aad []byte) (measure.Work, error) {
	plaintext := bytes.Repeat([]byte("secret! "), o.size/8)
	seal, open, err := s.prepare(slices.Clone(plaintext), aad)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if got, err := open(); err != nil || !bytes.Equal(got, plaintext) {
		return nil, fmt.Errorf("%s: does not open what it sealed: %w", s.name, err)
	}
	once := seal
	if o.open {
		once = func() error { _, err := open(); return err }
	}
	return func(n int) {
		for range n {
			if err := once(); err != nil {
				panic(fmt.Errorf("%s: %w", s.name, err)) // it worked a moment ago
			}
		}
	}, nil
}
