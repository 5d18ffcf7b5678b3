package postgres

import (
	"crypto/x509"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockwood-kms/lockwood/store"
)

// causeOf returns why err, as it came from the driver, was returned.
func causeOf(err error) store.Cause {
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		return serverCause(server)
	}
	if cause := certificateCause(err); cause != "" {
		return cause
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); !ok {
		return ""
	}
	// pgx has no sentinel for it.
	if strings.Contains(err.Error(), "server refused TLS connection") {
		return store.NoTLS
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return store.Unreachable
	}
	return ""
}

// serverCause goes by the SQLSTATE and, where one has several meanings, by the function
// of the server that reports, which is the same in every language.
func serverCause(e *pgconn.PgError) store.Cause {
	switch {
	case isFiltered(e):
		return "" // which has words of its own
	case e.Code == "28000" && e.Routine == "InitializeSessionUserId":
		return store.NoRole
	case e.Code == "28000":
		return store.TLSRequired
	case isMissing(e), isOlder(e):
		return store.NotMigrated
	}
	return map[string]store.Cause{
		"28P01": store.WrongPassword, "3D000": store.NoDatabase, notPermitted: store.NoRights, "53100": store.DiskFull,
		readOnlyTransaction: store.TakesNoWrites, relocated: store.Relocated, "53300": store.TooMany,
	}[e.Code]
}

func certificateCause(err error) store.Cause {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return store.UnknownAuthority
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return store.OtherName
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return store.BadCertificate
	}
	return ""
}
