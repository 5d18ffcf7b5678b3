package vaulttest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

// Server is a running server, and the means to set it up. It is safe for concurrent
// use, but sealing it is seen by everyone.
type Server struct {
	// URL is http://127.0.0.1:PORT.
	URL string `json:"address"`
	// RootToken may do everything.
	RootToken string `json:"root_token"`
	// UnsealKey unseals the server, alone.
	UnsealKey string `json:"unseal_key"`

	namespace string
	// input is what the server ends with: it must not be collected before the Server.
	input io.Closer
}

// In returns a handle on the same server in a namespace.
func (s *Server) In(namespace string) *Server {
	other := *s
	other.namespace = namespace
	return &other
}

// Write sends a PUT with the root token and returns the answer's "data", or its
// "auth" if it has that.
func (s *Server) Write(ctx context.Context, path string, body map[string]any) (map[string]any, error) {
	return s.Do(ctx, http.MethodPut, path, s.RootToken, body)
}

// Read sends a GET with the root token and returns the answer's "data".
func (s *Server) Read(ctx context.Context, path string) (map[string]any, error) {
	return s.Do(ctx, http.MethodGet, path, s.RootToken, nil)
}

// Delete sends a DELETE with the root token.
func (s *Server) Delete(ctx context.Context, path string) error {
	_, err := s.Do(ctx, http.MethodDelete, path, s.RootToken, nil)
	return err
}

// Seal seals the server: it answers 503 to everything until Unseal.
func (s *Server) Seal(ctx context.Context) error {
	_, err := s.Write(ctx, "sys/seal", nil)
	return err
}

// Unseal unseals the server, and returns once it answers again.
func (s *Server) Unseal(ctx context.Context) error {
	if _, err := s.Write(ctx, "sys/unseal", map[string]any{"key": s.UnsealKey}); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := s.Read(ctx, "sys/mounts")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the unsealed server: %w", err)
		case <-tick.C:
		}
	}
}

// Token makes a token with policies, and further parameters of auth/token/create.
func (s *Server) Token(ctx context.Context, policies []string, more map[string]any) (string, error) {
	body := map[string]any{"policies": policies, "no_parent": true}
	maps.Copy(body, more)
	auth, err := s.Write(ctx, "auth/token/create", body)
	if err != nil {
		return "", err
	}
	token, _ := auth["client_token"].(string)
	return token, nil
}

// Do sends a request with a token, "" for none.
func (s *Server) Do(ctx context.Context, method, path, token string, body map[string]any) (map[string]any, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding a request: %w", err)
		}
		content = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, s.URL+"/v1/"+path, content)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	r.Header.Set("X-Vault-Request", "true")
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	if s.namespace != "" {
		r.Header.Set("X-Vault-Namespace", s.namespace)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("calling OpenBao: %w", err)
	}
	defer resp.Body.Close()
	return answer(method+" "+path, resp)
}

func answer(request string, resp *http.Response) (map[string]any, error) {
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", request, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, fmt.Errorf("%s: %s: %s", request, resp.Status, strings.TrimSpace(string(b)))
	}
	var got struct{ Data, Auth map[string]any }
	if len(b) > 0 {
		if err := json.Unmarshal(b, &got); err != nil {
			return nil, fmt.Errorf("%s: %w", request, err)
		}
	}
	if got.Auth != nil {
		return got.Auth, nil
	}
	return got.Data, nil
}
