package servers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/core"
)

// ErrNotFound means that no server has the ID, or the resource.
var ErrNotFound = errors.New("there is no such MCP server")

// ErrUnavailable means that Forest did not answer, now or ever before, so that nobody knows
// whether there is such a server.
var ErrUnavailable = errors.New("the directory of MCP servers is not available")

// Options say where the directory comes from.
type Options struct {
	// File is the path of the operator's file, "" for none. Its entries win over Forest's.
	File string
	// ForestURL is Forest's server and ForestSecret the secret of the environment. Without a
	// secret Forest is not asked.
	ForestURL    string
	ForestSecret core.Secret
	// Egress says what URLs are admitted in the directory, and how Forest is reached.
	Egress egress.Options
	// Logger is told of changes and mistakes. Nil is slog.Default.
	Logger *slog.Logger
}

// Directory finds MCP servers. It is safe for concurrent use. Its methods read the file
// anew, and ask Forest if its last answer is older than 30 seconds.
type Directory struct {
	file   *file   // nil: none
	forest *forest // nil: none
	egress egress.Options
}

// New returns the directory. It fails if the file has a mistake, or the URL of Forest is not
// admitted. It does not ask Forest.
func New(opts Options) (*Directory, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	d := &Directory{egress: opts.Egress}
	var err error
	if opts.File != "" {
		if d.file, err = openFile(opts.File, opts.Egress.Endpoints, opts.Logger); err != nil {
			return nil, err
		}
	}
	if opts.ForestSecret != "" {
		if d.forest, err = newForest(opts.ForestURL, opts.ForestSecret, opts.Egress, opts.Logger); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Servers returns every server, by ID. If a source cannot be read there is an error as
// well, and the servers are what it said before.
func (d *Directory) Servers(ctx context.Context) ([]*Server, error) {
	var servers []*Server
	var fileErr, forestErr error
	if d.file != nil {
		servers, fileErr = d.file.read(ctx)
		servers = slices.Clone(servers)
	}
	if d.forest != nil {
		var listed []*Server
		listed, forestErr = d.forest.read(ctx)
		for _, s := range listed {
			if !slices.ContainsFunc(servers, func(other *Server) bool { return other.ID == s.ID }) {
				servers = append(servers, s)
			}
		}
		if listed == nil && forestErr != nil {
			forestErr = fmt.Errorf("%w: %w", ErrUnavailable, forestErr)
		}
	}
	slices.SortFunc(servers, func(a, b *Server) int { return cmp.Compare(a.ID, b.ID) })
	return servers, errors.Join(fileErr, forestErr)
}

// Find returns the server with the ID. It returns ErrNotFound, or ErrUnavailable.
func (d *Directory) Find(ctx context.Context, id string) (*Server, error) {
	if d.file != nil {
		// Without a look at Forest, which may not answer.
		servers, _ := d.file.read(ctx) // a mistake is logged
		if s := withID(servers, id); s != nil {
			return s, nil
		}
	}
	servers, err := d.Servers(ctx)
	if s := withID(servers, id); s != nil {
		return s, nil
	}
	if errors.Is(err, ErrUnavailable) {
		return nil, ErrUnavailable
	}
	return nil, ErrNotFound
}

func withID(servers []*Server, id string) *Server {
	for _, s := range servers {
		if s.ID == id {
			return s
		}
	}
	return nil
}

// FindResource returns the servers whose URL, or resource indicator, the given URI is. It
// returns ErrNotFound, or ErrUnavailable.
func (d *Directory) FindResource(ctx context.Context, uri string) ([]*Server, error) {
	canonical, err := admitted(uri, d.egress.Endpoints)
	if err != nil {
		return nil, ErrNotFound
	}
	servers, err := d.Servers(ctx)
	var found []*Server
	for _, s := range servers {
		if s.URL == canonical || s.indicator == canonical {
			found = append(found, s)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case errors.Is(err, ErrUnavailable):
		return nil, ErrUnavailable
	}
	return nil, ErrNotFound
}
