package main

import "github.com/lockwood-kms/lockwood/store"

// causeRemedies say what to do about each cause for which a database does not serve.
var causeRemedies = map[store.Cause]string{
	store.Unreachable:      "start the database, or correct host and port in DATABASE_URL; see that nothing between here and there closes the port",
	store.NoTLS:            "turn TLS on in the server (ssl = on); where the connection cannot be overheard, DATABASE_SSL=false does without it",
	store.TLSRequired:      "the server's pg_hba.conf does not admit this connection: set DATABASE_SSL=true if it asks for TLS, and else have it admit the role, the database and this host",
	store.UnknownAuthority: "name the authority's certificate, a PEM file, with DATABASE_SSL_CA",
	store.OtherName:        "connect by the name that the server's certificate is for, or give the server one for the name in DATABASE_URL",
	store.BadCertificate:   "give the server a certificate that is valid now, and see that the clocks agree",
	store.WrongPassword:    "correct the password in DATABASE_URL, or in the passfile that it names, which is read at each connection; or make the role",
	store.NoRole:           "make the role, or correct the user in DATABASE_URL",
	store.NoDatabase:       "make the database, or correct its name in DATABASE_URL",
	store.NoRights:         "grant the role the rights that docs/operations.md lists under The role in PostgreSQL; lockwood doctor names what is missing",
	store.DiskFull:         "make room on the disk of the database, or raise the quota or the limit on the size of files; it goes on by itself. If there is room, the disk fails: see the log of the system",
	store.Moved:            "restart the service, once the file that it is to use is at its path",
	store.TakesNoWrites:    "find out why the database takes no writes: it may be a former primary, transactions may be read-only for the role, or the file may be closed to this user",
	store.TooMany:          "raise max_connections, or have fewer instances or a smaller pool_max_conns in DATABASE_URL",
	store.Relocated:        "this store is copied to another database, or has moved there; lockwood doctor says where: set DATABASE_URL to that one, or finish the copy",
	store.NotMigrated:      "start lockwood serve, which makes its tables; if it did, correct DATABASE_URL or DATABASE_SCHEMA",
}

// databaseRemedy says what to do about err, or says other where that is not known.
func databaseRemedy(err error, other string) string {
	if remedy, ok := causeRemedies[store.CauseOf(err)]; ok {
		return remedy
	}
	return other
}
