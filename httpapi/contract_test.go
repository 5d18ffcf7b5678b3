package httpapi_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/httpapi"
	"github.com/lockwood-kms/lockwood/httpapi/replay"
	"github.com/lockwood-kms/lockwood/internal/openapitest"
)

// contract returns docs/openapi.yaml.
var contract = sync.OnceValues(func() (*openapitest.Document, error) { return openapitest.Load("../docs/openapi.yaml") })

// broken are the exchanges of all tests that docs/openapi.yaml does not have.
var broken struct {
	mu   sync.Mutex
	list []error
}

// TestMain fails if any test saw an exchange that docs/openapi.yaml does not have.
func TestMain(m *testing.M) {
	code := m.Run()
	for _, err := range broken.list {
		_, _ = fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// holds keeps what is wrong with an exchange for TestMain.
func holds(h http.Handler, r *http.Request, body string, w *httptest.ResponseRecorder) {
	_, isMain := h.(*httpapi.Server)
	document, err := contract()
	if err == nil {
		err = document.Check(&openapitest.Exchange{
			Admin:  !isMain,
			Method: r.Method, Target: r.RequestURI, Header: r.Header, Body: []byte(body),
			Status: w.Code, AnswerHeader: w.Header(), Answer: w.Body.Bytes(),
		})
	}
	if err != nil {
		broken.mu.Lock()
		defer broken.mu.Unlock()
		broken.list = append(broken.list, err)
	}
}

// Observe implements replay.Observer.
func (t *target) Observe(_ *replay.Exchange, request []byte, status int, header http.Header, body []byte) error {
	document, err := contract()
	if err != nil {
		return err
	}
	return observe(document, request, status, header, body)
}

// observe holds an exchange against the document. What is no HTTP is not in it, nor what
// the HTTP library answers to that.
func observe(document *openapitest.Document, request []byte, status int, header http.Header, answer []byte) error {
	if status == http.StatusBadRequest && header.Get("X-Executor-Version") == "" {
		return nil
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
	if err != nil {
		return nil //nolint:nilerr // the recording has such requests on purpose
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	return document.Check(&openapitest.Exchange{
		Method: r.Method, Target: r.RequestURI, Header: r.Header, Body: body,
		Status: status, AnswerHeader: header, Answer: answer,
	})
}

// TestContractHasTheRoutes holds that docs/openapi.yaml has the routes of both
// listeners, and no others.
func TestContractHasTheRoutes(t *testing.T) {
	document, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	server, _ := newServer(t, nil)
	admin := server.Admin(httpapi.AdminOptions{})
	want := httpapi.Operations()
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if w := do(admin, http.MethodGet, path, ""); w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
		want = append(want, "GET "+path)
	}
	slices.Sort(want)
	if got := document.Operations(); !slices.Equal(got, want) {
		t.Errorf("docs/openapi.yaml has\n%s\nthe service has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
