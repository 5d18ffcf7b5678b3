package httpapi

import (
	"strconv"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// The longest values, in UTF-16 units as JavaScript counts them; the columns of
// upstream's table have these widths.
const (
	maxID       = 255
	maxEndpoint = 2048
	maxScopes   = 2048
)

// issues collects what is wrong with a body, in the words of upstream.
type issues []string

func (is *issues) add(field, message string) {
	*is = append(*is, field+": "+message)
}

// response returns the 400 that lists the issues.
func (is issues) response() response {
	return errorResponse(400, "Invalid request body — "+strings.Join(is, "; "))
}

// deposit judges the fields. Every issue is found, not only the first.
func (f *fields) deposit(endpoints *tokenendpoint.Guard) (*credential.Deposit, issues) {
	var is issues
	if f.top != kindObject {
		is.add("body", "Invalid input: expected object, received "+f.top.String())
		return nil, is
	}
	d := &credential.Deposit{
		MCPServerID:             is.required("mcpServerId", f.mcpServerID, maxID),
		RefreshToken:            core.Secret(is.secret("refreshToken", f.refreshToken)),
		ClientID:                is.optional("clientId", f.clientID, 1, maxID),
		ClientSecret:            is.optionalSecret("clientSecret", f.clientSecret),
		ClientSecretExpiresAt:   is.date("clientSecretExpiresAt", f.clientSecretExpiresAt),
		TokenEndpoint:           is.endpoint("tokenEndpoint", f.tokenEndpoint, endpoints),
		TokenEndpointAuthMethod: is.authMethod("tokenEndpointAuthMethod", f.tokenEndpointAuthMethod),
		Scopes:                  is.optional("scopes", f.scopes, 0, maxScopes),
	}
	is.unrecognized(f.unknown)
	if len(is) == 0 && d.ClientSecret != nil && d.ClientID == nil {
		// RFC 6749, section 2.3.1: a secret without an ID authenticates nobody.
		is.add("clientId", "clientId is required when clientSecret is provided")
	}
	if len(is) > 0 {
		return nil, is
	}
	return d, nil
}

// text checks that v is a string of the given length; most of 0 is no bound.
func (is *issues) text(field string, v value, least, most int) string {
	switch {
	case v.kind != kindString:
		is.add(field, "Invalid input: expected string, received "+v.kind.String())
	case len(v.text) < least:
		is.add(field, "Too small: expected string to have >=1 characters")
	case most > 0 && longer(v.text, most):
		is.add(field, "Too big: expected string to have <="+strconv.Itoa(most)+" characters")
	}
	return v.text
}

// plain is text that is stored as it is, where PostgreSQL has no NUL. To drop or
// replace one would make two values equal that are not.
func (is *issues) plain(field string, v value, least, most int) string {
	if strings.IndexByte(v.text, 0) >= 0 {
		is.add(field, "must not hold a NUL character")
	}
	return is.text(field, v, least, most)
}

func (is *issues) required(field string, v value, most int) string {
	return is.plain(field, v, 1, most)
}

func (is *issues) optional(field string, v value, least, most int) *string {
	if v.kind == kindUndefined {
		return nil
	}
	s := is.plain(field, v, least, most)
	return &s
}

func (is *issues) secret(field string, v value) string {
	return is.text(field, v, 1, 0)
}

func (is *issues) optionalSecret(field string, v value) *core.Secret {
	if v.kind == kindUndefined {
		return nil
	}
	s := core.Secret(is.secret(field, v))
	return &s
}

func (is *issues) date(field string, v value) *time.Time {
	if v.kind == kindUndefined {
		return nil
	}
	if v.kind != kindString {
		is.text(field, v, 0, 0)
		return nil
	}
	t, ok := parseDate(v.text)
	if !ok {
		is.add(field, "must be a parseable date")
	}
	return &t
}

func (is *issues) endpoint(field string, v value, endpoints *tokenendpoint.Guard) string {
	s := is.text(field, v, 1, maxEndpoint)
	if v.kind != kindString || longer(s, maxEndpoint) {
		return s
	}
	if err := endpoints.Check(s); err != nil {
		is.add(field, "Invalid OAuth token endpoint: "+err.Error())
	}
	return s
}

func (is *issues) authMethod(field string, v value) *string {
	if v.kind == kindUndefined {
		return nil
	}
	switch v.text {
	case "client_secret_basic", "client_secret_post", "none":
	default:
		is.add(field, `Invalid option: expected one of "client_secret_basic"|"client_secret_post"|"none"`)
	}
	return &v.text
}

// unrecognized refuses fields that a deposit does not have: above all a user ID,
// which comes from the token only. It does not repeat their names: a body that is
// sent under the wrong content type is one long name, token and all.
func (is *issues) unrecognized(count int) {
	switch {
	case count == 1:
		is.add("body", "Unrecognized key")
	case count > 1:
		is.add("body", "Unrecognized keys: "+strconv.Itoa(count))
	}
}

// longer reports whether s has more than most UTF-16 units.
func longer(s string, most int) bool {
	if len(s) <= most {
		return false // a unit is at least one byte
	}
	units := 0
	for _, r := range s {
		units++
		if r > 0xFFFF {
			units++
		}
	}
	return units > most
}
