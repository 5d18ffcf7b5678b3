package tools

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/core"
)

// Timeout is how long a listing may take, grants included.
const Timeout = 28 * time.Second

// The bounds of a listing. Its bytes are those of all responses, however many there are.
const (
	MaxBytes = 2 << 20
	MaxTools = 2000
	maxPages = 200
)

// ErrUnreachable means that the server did not list its tools: it was not reached, its
// address is not admitted, or it answered with an error, with more than may be, or with
// what is not MCP.
var ErrUnreachable = errors.New("the MCP server did not list its tools")

// ErrNoRoom means that there was no memory for what the server answers.
var ErrNoRoom = errors.New("there is no memory for the tools of the MCP server")

// Tool is a tool as its server describes it.
type Tool struct {
	Name string
	// Description is "" if the server gives none.
	Description string
}

// Tokens gives out access tokens; *access.Service is one.
type Tokens interface {
	// Token returns an access token for the credential.
	Token(ctx context.Context, key access.Key, demand access.Demand) (*access.Token, error)
}

// Directory finds MCP servers; *servers.Directory is one.
type Directory interface {
	// Find returns the server with the ID, or one of the errors of package servers.
	Find(ctx context.Context, id string) (*servers.Server, error)
}

// Service lists tools. It is safe for concurrent use, and keeps neither a connection nor an
// answer.
type Service struct {
	tokens    Tokens
	directory Directory
	egress    egress.Options
	version   string
}

// NewService returns a service. out says how servers are reached, and version is what they
// are told of this program.
func NewService(tokens Tokens, directory Directory, out egress.Options, version string) *Service {
	return &Service{tokens, directory, out, version}
}

// List returns the tools of the MCP server, in its order, as the user of key sees them.
// reserve is asked for memory before bytes of the server's are kept, and reports whether
// there is some; a nil reserve always has. It is not called once List has returned, nor by
// two goroutines at the same time.
//
// A server that takes no access token is asked with the headers of the directory only. A
// token that the server answers with 401 is reported as rejected and exchanged for another,
// once. A 403 is not: another token would have the same rights.
//
// It returns servers.ErrNotFound or servers.ErrUnavailable, an error of access.Service.Token
// (access.ErrReauth also for a second 401), ErrUnreachable, or ErrNoRoom.
func (s *Service) List(ctx context.Context, key access.Key, reserve func(bytes int64) bool) ([]Tool, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	server, err := s.directory.Find(ctx, key.MCPServerID)
	if err != nil {
		return nil, fmt.Errorf("finding the MCP server: %w", err)
	}
	if !server.OAuth() {
		return s.list(ctx, server, "", reserve)
	}
	var rejected core.Secret
	for {
		token, err := s.tokens.Token(ctx, key, access.Demand{Rejected: rejected})
		if err != nil {
			return nil, err
		}
		tools, err := s.list(ctx, server, token.AccessToken, reserve)
		switch {
		case !errors.Is(err, errUnauthorized):
			return tools, err
		case rejected != "":
			return nil, fmt.Errorf("%w: the MCP server rejected a new access token", access.ErrReauth)
		}
		rejected = token.AccessToken
	}
}
