package httpapi

import (
	"errors"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/lockwood-kms/lockwood/credential"
)

// The text around the credentials in the answer to GET /mcp-oauth-credentials.
const (
	listBegin = `{"credentials":[`
	listEnd   = `]}`
)

// list answers GET /mcp-oauth-credentials: the caller's own, and nothing secret. It
// holds one page at a time. A list of one page has a length; a longer one is sent
// as it is read.
func (s *Server) list(x *exchange) response {
	next, stop := iter.Pull2(s.credentials.List(x.Context(), x.caller.userID))
	first, last, err := nextPage(x, next)
	if err != nil {
		stop()
		return s.failed(x, err)
	}
	if last {
		stop()
		return jsonResponse(http.StatusOK, listBegin+string(first)+listEnd)
	}
	return response{status: http.StatusOK, contentType: typeJSON, stream: func(w io.Writer) error {
		defer stop()
		page := first
		first = nil // this function would keep it until the last page is written
		return writePages(w, x, page, next)
	}}
}

// writePages writes page, the first, and those that follow it.
func writePages(w io.Writer, x *exchange, page []byte, next func() ([]credential.Listed, error, bool)) error {
	separator := listBegin
	for last := false; ; separator = "," {
		if len(page) > 0 {
			_, err := io.WriteString(w, separator)
			if err == nil {
				_, err = w.Write(page)
			}
			if err != nil {
				return errGone
			}
		}
		if last {
			if _, err := io.WriteString(w, listEnd); err != nil {
				return errGone
			}
			return nil
		}
		var err error
		if page, last, err = nextPage(x, next); err != nil {
			return err
		}
	}
}

// errGone means that the client does not read the answer. It leaves out the cause,
// which names addresses.
var errGone = errors.New("writing the answer: the client is gone")

// nextPage returns the next page as JSON, without brackets, and whether it is the
// last. It claims the memory for reading and encoding it, and keeps of that what the
// text takes, until it is called again. The page before has been written then.
func nextPage(x *exchange, next func() ([]credential.Listed, error, bool)) (text []byte, last bool, err error) {
	x.claim.shrink(0)
	if err := x.claim.wait(x.Context(), pageCost); err != nil {
		return nil, false, err
	}
	busy := x.claim.work(x.Context(), func() {
		var page []credential.Listed
		if page, err, _ = next(); err == nil {
			text, err = appendCredentials(nil, page)
		}
		last = len(page) < credential.ListPage
		clear(page) // next would keep what it holds until the next page
	})
	x.claim.shrink(2 * int64(cap(text)))
	return text, last, errors.Join(busy, err)
}

// credentialJSON is a credential in the answer to GET /mcp-oauth-credentials.
// Absent values are null.
type credentialJSON struct {
	MCPServerID             string  `json:"mcpServerId"`
	ClientID                *string `json:"clientId"`
	HasClientSecret         bool    `json:"hasClientSecret"`
	ClientSecretExpiresAt   *string `json:"clientSecretExpiresAt"`
	TokenEndpoint           string  `json:"tokenEndpoint"`
	TokenEndpointAuthMethod *string `json:"tokenEndpointAuthMethod"`
	Scopes                  *string `json:"scopes"`
	CreatedAt               string  `json:"createdAt"`
	UpdatedAt               string  `json:"updatedAt"`
	// What upstream does not have.
	State                string  `json:"state"`
	LastRefreshedAt      *string `json:"lastRefreshedAt"`
	AccessTokenExpiresAt *string `json:"accessTokenExpiresAt"`
}

func newCredentialJSON(m *credential.Listed) *credentialJSON {
	c := &credentialJSON{
		MCPServerID:             m.MCPServerID,
		ClientID:                m.ClientID,
		HasClientSecret:         m.HasClientSecret,
		TokenEndpoint:           m.TokenEndpoint,
		TokenEndpointAuthMethod: m.TokenEndpointAuthMethod,
		Scopes:                  m.Scopes,
		CreatedAt:               isoMillis(m.CreatedAt),
		UpdatedAt:               isoMillis(m.UpdatedAt),
		State:                   string(m.State),
		ClientSecretExpiresAt:   optionalMillis(m.ClientSecretExpiresAt),
		LastRefreshedAt:         optionalMillis(m.LastRefreshedAt),
		AccessTokenExpiresAt:    optionalMillis(m.AccessTokenExpiresAt),
	}
	return c
}

// optionalMillis is isoMillis, nil for nil.
func optionalMillis(t *time.Time) *string {
	if t == nil {
		return nil
	}
	return new(isoMillis(*t))
}

// appendCredentials appends credentials to text. A row that another program wrote
// may hold what is not UTF-8.
func appendCredentials(text []byte, page []credential.Listed) ([]byte, error) {
	for i := range page {
		if i > 0 {
			text = append(text, ',')
		}
		encoded, err := json.Marshal(newCredentialJSON(&page[i]), jsontext.AllowInvalidUTF8(true))
		if err != nil {
			return nil, err
		}
		text = append(text, encoded...)
	}
	return text, nil
}
