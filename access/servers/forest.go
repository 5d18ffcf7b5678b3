package servers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/singleflight"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// ForestPath is what Forest is asked for.
const ForestPath = "/liana/mcp-server-configs-with-details"

const (
	forestKept    = 30 * time.Second // an answer counts for so long
	forestAgain   = 5 * time.Second  // after a failure
	forestTimeout = 10 * time.Second // as upstream
	maxForest     = 4 << 20          // bytes of an answer
)

// forest is Forest's list of servers. One request is under way at a time.
type forest struct {
	url       string
	secret    core.Secret
	client    *http.Client
	endpoints tokenendpoint.Options
	log       *slog.Logger
	one       singleflight.Group

	mu      sync.Mutex
	next    time.Time // no request before it
	text    []byte    // of the last answer
	servers []*Server // nil: none was ever read
	failure error     // of the last request
}

func newForest(server string, secret core.Secret, out egress.Options, log *slog.Logger) (*forest, error) {
	canonical, err := admitted(server, out.Endpoints)
	if err != nil {
		return nil, fmt.Errorf("the URL of Forest: %w", err)
	}
	base, err := url.Parse(canonical)
	if err != nil {
		return nil, errors.New("the URL of Forest cannot be parsed") // err quotes it
	}
	return &forest{
		url: base.ResolveReference(&url.URL{Path: ForestPath}).String(), secret: secret,
		client: &http.Client{
			Transport: egress.New(out, func(t *http.Transport) { t.DisableKeepAlives = true }),
			// The header with the secret would go along.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       forestTimeout,
		},
		endpoints: out.Endpoints, log: log,
	}, nil
}

// read returns what Forest says, or said not long ago. If it does not answer, that is what
// it said before, with an error.
func (f *forest) read(ctx context.Context) ([]*Server, error) {
	if servers, fresh, err := f.kept(); fresh {
		return servers, err
	}
	done := f.one.DoChan("", func() (any, error) {
		if _, fresh, _ := f.kept(); !fresh {
			f.refresh(context.WithoutCancel(ctx)) // others wait for it, too
		}
		return nil, nil
	})
	select {
	case <-done:
		servers, _, err := f.kept()
		return servers, err
	case <-ctx.Done():
		servers, _, _ := f.kept()
		return servers, context.Cause(ctx)
	}
}

// kept returns what was read last, whether it is too early to ask again, and what came of
// the last request.
func (f *forest) kept() (servers []*Server, fresh bool, failure error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.servers, time.Now().Before(f.next), f.failure
}

func (f *forest) refresh(ctx context.Context) {
	text, err := f.get(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && (f.servers == nil || !bytes.Equal(text, f.text)) {
		err = f.take(ctx, text)
	}
	f.failure = err
	if err == nil {
		f.next = time.Now().Add(forestKept)
		return
	}
	f.next = time.Now().Add(forestAgain)
	f.log.LogAttrs(ctx, slog.LevelWarn, "Forest did not list the MCP servers; what it said before stays in use",
		slog.String("error", err.Error()), slog.Bool("known", f.servers != nil))
}

// get asks Forest. Its error holds nothing of the answer.
func (f *forest) get(ctx context.Context) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, errors.New("the URL of Forest cannot be parsed")
	}
	r.Header = http.Header{"Forest-Secret-Key": {string(f.secret)}, "Accept": {"application/json"}, "User-Agent": {"lockwood"}}
	resp, err := f.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("asking Forest: %w", egress.Plain(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking Forest: it answered %d%s", resp.StatusCode, remedy(resp.StatusCode))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxForest+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading Forest's answer: %w", egress.Plain(err))
	case len(text) > maxForest:
		return nil, fmt.Errorf("reading Forest's answer: it has more than %d bytes", maxForest)
	}
	return text, nil
}

func remedy(status int) string {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return "; is FOREST_ENV_SECRET that of this environment?"
	}
	return ""
}

// take reads an answer: an object with an entry for each server. What cannot be used of it
// is left out, and said: a command, an integration of Forest's own, a URL that is not
// admitted.
func (f *forest) take(ctx context.Context, text []byte) error {
	var all map[string]jsontext.Value
	if err := json.Unmarshal(text, &all, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil || all == nil {
		return errors.New("reading Forest's answer: it is not an object of JSON")
	}
	servers := make([]*Server, 0, len(all))
	var left []string
	for name, raw := range all {
		var e entry
		err := json.Unmarshal(raw, &e, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		if err != nil {
			left = append(left, fmt.Sprintf("%s: %v", core.Text(name), mistakeIn(err)))
			continue
		}
		s, err := e.server(name, Forest, f.endpoints)
		if err != nil {
			left = append(left, fmt.Sprintf("%s: %v", core.Text(name), err))
			continue
		}
		servers = append(servers, s)
	}
	slices.SortFunc(servers, func(a, b *Server) int { return cmp.Compare(a.Name, b.Name) })
	f.text, f.servers = text, servers
	slices.Sort(left)
	level := slog.LevelInfo
	if len(left) > 0 {
		level = slog.LevelWarn
	}
	f.log.LogAttrs(ctx, level, "Forest listed the MCP servers", slog.Int("servers", len(servers)), slog.String("left_out", strings.Join(left, "; ")))
	return nil
}
