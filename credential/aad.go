package credential

import (
	"strconv"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

// aadPurpose is the first string of the aad of a credential's record.
const aadPurpose = "lockwood/1 credential"

// AppendAAD encodes into buf, whose contents are overwritten, the aad of the
// record in the given encrypted column of the credential that m describes
// (docs/format.md, section 5). It binds whose secret it is and where it is sent:
// column, user, server, token endpoint, client and auth method, and for the
// refresh token whether a client secret exists, since without one a token of a
// confidential client would be sent as a public client's.
//
// It returns envelope.ErrNUL if a value holds a NUL character.
func AppendAAD(buf []byte, column string, userID int64, m *Metadata) ([]byte, error) {
	aad := envelope.NewAAD(buf, aadPurpose)
	aad.Add(column)
	aad.Add(strconv.FormatInt(userID, 10))
	aad.Add(m.MCPServerID)
	aad.Add(m.TokenEndpoint)
	aad.AddOptional(m.ClientID)
	aad.AddOptional(m.TokenEndpointAuthMethod)
	if column == RefreshTokenColumn {
		aad.Add(clientSecretWord(m.HasClientSecret))
	}
	return aad.Bytes()
}

func clientSecretWord(has bool) string {
	if has {
		return "client secret"
	}
	return "no client secret"
}
