package store

import "errors"

// Cause is why a database does not serve, where that is known.
type Cause string

// The causes.
const (
	Unreachable      Cause = "unreachable"           // no answer, or the name of the host is not known
	NoTLS            Cause = "no TLS"                // the server has none, and it was asked for
	TLSRequired      Cause = "TLS required"          // the server, or its pg_hba.conf, does not admit the connection as it is
	UnknownAuthority Cause = "unknown authority"     // the certificate is of no authority that is trusted
	OtherName        Cause = "other name"            // the certificate is not for the host's name
	BadCertificate   Cause = "bad certificate"       // the certificate is not valid, as after its time
	WrongPassword    Cause = "wrong password"        // or the role does not exist, which the server does not tell apart
	NoRole           Cause = "no role"               // the role does not exist
	NoDatabase       Cause = "no database"           // the database does not exist
	NoRights         Cause = "no rights"             // the role may not do what was asked
	DiskFull         Cause = "disk full"             // or a quota, or a limit on the size of files, or a disk that fails
	Moved            Cause = "file moved"            // the path names another file than the one that is open, or none
	TakesNoWrites    Cause = "takes no writes"       // the server, or the file, is read-only
	TooMany          Cause = "too many connections"  //
	NotMigrated      Cause = "no tables of Lockwood" // or those of an older version
	Relocated        Cause = "store moved"           // the store is copied to another database, or has moved there
)

// Causes returns all causes.
func Causes() []Cause {
	return []Cause{
		Unreachable, NoTLS, TLSRequired, UnknownAuthority, OtherName, BadCertificate, WrongPassword, NoRole, NoDatabase, NoRights, DiskFull, Moved,
		TakesNoWrites, TooMany, NotMigrated, Relocated,
	}
}

// CauseError is an error whose cause is known.
type CauseError struct {
	Cause Cause
	Err   error
}

// Error returns the text of the error.
func (e *CauseError) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e *CauseError) Unwrap() error { return e.Err }

// CauseOf returns the cause of err, or "".
func CauseOf(err error) Cause {
	if e, ok := errors.AsType[*CauseError](err); ok {
		return e.Cause
	}
	return ""
}

// WithCause returns err with its cause, and err itself if that is "".
func WithCause(cause Cause, err error) error {
	if cause == "" || err == nil {
		return err
	}
	return &CauseError{Cause: cause, Err: err}
}
