package grant

import "github.com/lockwood-kms/lockwood/access/protocol"

// code is what an error code of a token endpoint means.
type code struct {
	verdict protocol.Verdict
	in200   bool // it counts also in a response with a status of success
}

// codes are the error codes that are known. Those of RFC 6749, section 5.2, come first,
// and then those that servers have of their own: GitHub and Slack answer errors with
// status 200. Atlassian says unauthorized_client, with status 403, for a refresh token
// that is not valid any more, as it stands in the list. A code that is not here is an
// error like any other.
var codes = map[string]code{
	"invalid_grant":          {protocol.InvalidGrant, true},
	"invalid_client":         {protocol.InvalidClient, true},
	"unauthorized_client":    {protocol.UnauthorizedClient, true},
	"invalid_request":        {protocol.Refused, false},
	"unsupported_grant_type": {protocol.Refused, false},
	"invalid_scope":          {protocol.Refused, false},
	// RFC 8707, section 2.
	"invalid_target": {protocol.Refused, false},
	// RFC 6749, section 4.1.2.1, which some servers use here too.
	"server_error":            {protocol.Refused, false},
	"temporarily_unavailable": {protocol.Refused, false},

	// GitHub: "Troubleshooting OAuth app access token request errors".
	"bad_refresh_token":            {protocol.InvalidGrant, true},
	"incorrect_client_credentials": {protocol.InvalidClient, true},

	// Slack: "oauth.v2.access", errors.
	"invalid_refresh_token": {protocol.InvalidGrant, true},
	"bad_client_secret":     {protocol.InvalidClient, true},
	"invalid_client_id":     {protocol.InvalidClient, true},
}
