package grant

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
)

// Request is what is presented, and where.
type Request struct {
	TokenEndpoint string
	RefreshToken  core.Secret
	ClientID      *string
	ClientSecret  *core.Secret
	// AuthMethod is the client's authentication at the endpoint, as in RFC 7591:
	// client_secret_post or, by default and for every other value, client_secret_basic.
	// Without a secret the client is public, whatever it says.
	AuthMethod *string
	Scopes     *string
	// Resource is the resource indicator of RFC 8707, "" for none.
	Resource string
}

// form returns the body. Its fields have an order, which is upstream's.
func (r *Request) form() string {
	var b strings.Builder
	add := func(name, value string) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(name + "=" + encode(value))
	}
	add("grant_type", "refresh_token")
	add("refresh_token", string(r.RefreshToken))
	if r.Scopes != nil && *r.Scopes != "" {
		add("scope", *r.Scopes)
	}
	if r.ClientID != nil && !r.basic() {
		add("client_id", *r.ClientID)
	}
	if r.ClientSecret != nil && !r.basic() {
		add("client_secret", string(*r.ClientSecret))
	}
	if r.Resource != "" {
		add("resource", r.Resource)
	}
	return b.String()
}

// basic reports whether the client authenticates by a header.
func (r *Request) basic() bool {
	return r.ClientSecret != nil && r.ClientID != nil && (r.AuthMethod == nil || *r.AuthMethod != "client_secret_post")
}

// header returns the headers. Each half of the credentials is form-encoded before they
// are joined (RFC 6749, section 2.3.1), so that an ID may hold a colon.
func (r *Request) header() http.Header {
	h := http.Header{
		"Content-Type": {"application/x-www-form-urlencoded"},
		"Accept":       {"application/json"},
		"User-Agent":   {"lockwood"},
	}
	if r.basic() {
		both := encode(*r.ClientID) + ":" + encode(string(*r.ClientSecret))
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(both)))
	}
	return h
}

// formEncoding is where the serializer of the WHATWG URL Standard, section 5.2, differs
// from package net/url.
var formEncoding = strings.NewReplacer("~", "%7E", "%2A", "*")

func encode(s string) string { return formEncoding.Replace(url.QueryEscape(s)) }
