package servers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// maxFile bounds the file, in bytes.
const maxFile = 1 << 20

// file is the operator's file. It is looked at whenever the directory is asked, so that a
// change counts at once.
type file struct {
	path      string
	endpoints tokenendpoint.Options
	log       *slog.Logger

	mu      sync.Mutex
	text    []byte // that was read last, with a mistake or without; nil: it could not be read
	mistake error  // of text, or of reading it; nil: servers are what it says
	servers []*Server
}

// openFile reads the file, and fails if it has a mistake: there is nothing to go on with.
func openFile(path string, endpoints tokenendpoint.Options, log *slog.Logger) (*file, error) {
	f := &file{path: path, endpoints: endpoints, log: log}
	text, err := readFile(path)
	if err == nil {
		f.text = text
		f.servers, err = parseFile(text, endpoints)
	}
	if err != nil {
		return nil, fmt.Errorf("the file of MCP servers %s: %w", core.Text(path), err)
	}
	return f, nil
}

// read returns what the file says or, if it has a mistake, what it said before, with the
// mistake. A mistake is logged once.
func (f *file) read(ctx context.Context) ([]*Server, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text, err := readFile(f.path)
	if err != nil {
		f.text = nil // so that the same text counts once it is there again
		f.note(ctx, err)
		return f.servers, f.mistake
	}
	if f.text != nil && bytes.Equal(text, f.text) {
		return f.servers, f.mistake
	}
	f.text = text
	servers, err := parseFile(text, f.endpoints)
	if err != nil {
		f.note(ctx, err)
		return f.servers, f.mistake
	}
	f.servers, f.mistake = servers, nil
	f.log.LogAttrs(ctx, slog.LevelInfo, "the file of MCP servers was read anew", slog.String("file", f.path), slog.Int("servers", len(servers)))
	return f.servers, nil
}

// note keeps a mistake, and logs it if it is another one than before.
func (f *file) note(ctx context.Context, mistake error) {
	if f.mistake != nil && f.mistake.Error() == mistake.Error() {
		return
	}
	f.mistake = mistake
	f.log.LogAttrs(ctx, slog.LevelError, "the file of MCP servers has a mistake; what it said before stays in use",
		slog.String("file", f.path), slog.String("error", mistake.Error()))
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("it cannot be read: %w", err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return text, nil
}

// parseFile reads {"mcpServers":{"NAME":{…}}}. Its error names the server and the field,
// and quotes no value, since a URL or a header may be a secret.
func parseFile(text []byte, endpoints tokenendpoint.Options) ([]*Server, error) {
	var all struct {
		Servers map[string]*entry `json:"mcpServers"`
	}
	if err := json.Unmarshal(text, &all, json.RejectUnknownMembers(true)); err != nil {
		return nil, mistakeIn(err)
	}
	if all.Servers == nil {
		return nil, errors.New(`want {"mcpServers":{"NAME":{…}}}`)
	}
	names := make(map[string]string, len(all.Servers)) // by ID
	var servers []*Server
	for name, e := range all.Servers {
		if e == nil {
			return nil, fmt.Errorf("mcpServers.%s: want an object", core.Text(name))
		}
		s, err := e.server(name, File, endpoints)
		if err != nil {
			return nil, fmt.Errorf("mcpServers.%s: %w", core.Text(name), err)
		}
		if other, taken := names[s.ID]; taken {
			return nil, fmt.Errorf("mcpServers.%s and mcpServers.%s have the same id", core.Text(min(name, other)), core.Text(max(name, other)))
		}
		names[s.ID] = name
		servers = append(servers, s)
	}
	slices.SortFunc(servers, func(a, b *Server) int { return cmp.Compare(a.Name, b.Name) })
	return servers, nil
}

// mistakeIn says where JSON has a mistake, without the text around it.
func mistakeIn(err error) error {
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		what := "has a value of the wrong type"
		if errors.Is(err, json.ErrUnknownName) {
			what = "is not known; see docs/http.md for the fields that are"
		}
		return fmt.Errorf("%s %s", core.Text(string(e.JSONPointer)), what)
	}
	return errors.New("it is not valid JSON")
}
