package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// Plain returns err, of a request, as it may be logged: without the URL, which may hold a
// secret, and without what the other end wrote. net/http quotes an answer that is not HTTP,
// and whoever has a token could have it quoted. errors.Is and errors.As see err as it was.
func Plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if err == nil || fixed(err) {
		return err
	}
	return plainError{err}
}

// fixed reports an error whose text is made on this side, or by the operating system. The
// names in a certificate are not: they were sent before the request was.
func fixed(err error) bool {
	for _, is := range []error{
		ErrNotAdmitted, errProxy, context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, http.ErrSchemeMismatch,
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	_, operation := errors.AsType[*net.OpError](err)
	_, name := errors.AsType[*net.DNSError](err)
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, number := errors.AsType[syscall.Errno](err)
	return operation || name || certificate || number
}

type plainError struct{ err error }

// Error implements error.
func (plainError) Error() string { return "the connection failed, or the answer was not HTTP" }

// Unwrap returns the error with its text.
func (e plainError) Unwrap() error { return e.err }
