package replay

import (
	"encoding/json"
	"fmt"
	"os"
)

// The modes that upstream was recorded in.
const (
	ModeRunning     = "real-cli/production"
	ModeNoKey       = "real-cli/production/no-key"
	ModeDatabaseOff = "real-cli/production/postgres-stopped"
	ModeDatabaseOn  = "real-cli/production/postgres-restarted"
	ModeStates      = "real ExecutorHttpServer class, stub runner"
)

// Recording is a file of recorded exchanges.
type Recording struct {
	Meta struct {
		AuthSecret string `json:"FOREST_AUTH_SECRET"`
		Key        string `json:"FOREST_EXECUTOR_ENCRYPTION_KEY"`
	} `json:"meta"`
	Exchanges []*Exchange `json:"records"`
}

// Exchange is one request as it was sent, the response to it and what it left in
// the database.
type Exchange struct {
	ID      string `json:"id"`
	Group   string `json:"group"`
	Mode    string `json:"mode"`
	Request struct {
		Method   string            `json:"method"`
		Path     string            `json:"path"`
		Headers  map[string]string `json:"headers"`
		Body     json.RawMessage   `json:"body"`      // a string, or {"hex": …}
		BodyDesc string            `json:"body_desc"` // a body too long to be recorded, in words
		Raw      string            `json:"raw"`       // the whole request, instead of all the above
	} `json:"request"`
	Response struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    json.RawMessage   `json:"body"` // JSON, or a string of plain text
		Raw     string            `json:"raw"`
	} `json:"response"`

	Row      *Row   `json:"db_row"`    // the row that a deposit left
	StoredID string `json:"stored_id"` // what was deposited before a DELETE
	RowsLeft *int   `json:"row_left"`  // how many rows were there after it

	fullBody string // the body that a BodyDesc may mean
}

// Row is a stored credential, as recorded.
type Row struct {
	UserID                  int64   `json:"user_id"`
	MCPServerID             string  `json:"mcp_server_id"`
	ClientID                *string `json:"client_id"`
	HasClientSecret         bool    `json:"has_secret"`
	ClientSecretExpiresAt   *string `json:"client_secret_expires_at"` // as JavaScript's toISOString
	TokenEndpoint           string  `json:"token_endpoint"`
	TokenEndpointAuthMethod *string `json:"token_endpoint_auth_method"`
	Scopes                  *string `json:"scopes"`
	// LegacyLen is the length of the refresh token's record in legacy format:
	// that of the token, in bytes, and LegacyOverhead.
	LegacyLen int `json:"refresh_enc_len"`
}

// LegacyOverhead is by how many bytes a legacy record is longer than its
// plaintext.
const LegacyOverhead = 28

// Name identifies an exchange among all.
func (e *Exchange) Name() string { return e.Group + "/" + e.ID }

// Load reads a recording.
func Load(path string) (*Recording, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("loading recording: %w", err)
	}
	rec := new(Recording)
	if err := json.Unmarshal(text, rec); err != nil {
		return nil, fmt.Errorf("loading recording: %w", err)
	}
	full := ""
	for _, e := range rec.Exchanges {
		if e.Name() == "body/full_valid" {
			if err := json.Unmarshal(e.Request.Body, &full); err != nil {
				return nil, fmt.Errorf("loading recording: %w", err)
			}
		}
	}
	for _, e := range rec.Exchanges {
		e.fullBody = full
	}
	return rec, nil
}
