package awstest

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core/providertest"
)

// The account and Region of the server's keys, unless a key is given another.
const (
	Account = "111122223333"
	Region  = "eu-west-3"
)

// Server is an AWS KMS, and the one operation of STS that a provider needs. It is
// safe for concurrent use.
type Server struct {
	// URL is where it listens, on the loopback interface.
	URL string
	// Requests lets a test look at each request before it is answered, or answer it
	// by returning true.
	Requests func(w http.ResponseWriter, r *http.Request, operation string) bool

	http *httptest.Server

	mu      sync.Mutex
	keys    map[string]*Key   // by Region and key ID
	aliases map[string]string // Region and alias to key ID
	calls   map[string]int
	faults  map[string]Fault
	denied  map[string]func(map[string]string) bool
	tokens  map[string]string // access key ID to the code it is refused with
	lenient providertest.Leniency
	wrapped []byte // the last plaintext that was wrapped

	// NoMaterials leaves key material IDs out, NoDryRun ignores DryRun and its
	// modifiers: as services other than AWS do.
	NoMaterials, NoDryRun bool
}

// Fault is an answer other than the operation's own.
type Fault struct {
	// Code is the exception, with an HTTP status; 400 if zero.
	Code    string
	Status  int
	Message string
	// Header is added to the answer.
	Header http.Header
	// Body, if not empty, is sent instead of an exception.
	Body string
	// Drop closes the connection instead of answering.
	Drop bool
	// Hang answers nothing until the client goes.
	Hang bool
	// Times is how often the fault occurs; zero is always.
	Times int
}

// NewServer starts a server without keys. Close it when done.
func NewServer() *Server {
	s := &Server{
		keys: map[string]*Key{}, aliases: map[string]string{}, calls: map[string]int{}, faults: map[string]Fault{},
		denied: map[string]func(map[string]string) bool{}, tokens: map[string]string{},
	}
	s.http = httptest.NewServer(s)
	s.URL = s.http.URL
	return s
}

// Close ends the server and its connections.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// Fail makes an operation fail, or all of them if operation is "*", until restore
// is called.
func (s *Server) Fail(operation string, f Fault) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[operation] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.faults, operation)
	}
}

// Revoke takes the permission to an operation away, or to all of them if operation
// is "*", until restore is called.
func (s *Server) Revoke(operation string) (restore func()) {
	return s.Restrict(operation, func(map[string]string) bool { return false })
}

// Restrict permits an operation only under an encryption context, as the condition
// kms:EncryptionContext of a policy does, until restore is called.
func (s *Server) Restrict(operation string, permits func(ec map[string]string) bool) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[operation] = permits
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.denied, operation)
	}
}

// Refuse answers every request of an access key with a code of the service, such as
// ExpiredTokenException; an empty code accepts it again.
func (s *Server) Refuse(accessKeyID, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[accessKeyID] = code
}

// Calls returns how often each operation was asked for; dry runs count as
// "DryRun:" and the operation.
func (s *Server) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// credential is the scope of Signature Version 4: access key, date, Region, service.
var credential = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/([0-9]{8})/([a-z0-9-]+)/(kms|sts)/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})$`)

// caller is who asks, from where.
type caller struct{ accessKey, region string }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return // the client has gone
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		s.serveSTS(w, r, body)
		return
	}
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	who, fault := s.authenticate(r)
	if fault == nil {
		fault = s.fault(operation)
	}
	if s.Requests != nil && s.Requests(w, r, operation) {
		return
	}
	var answer any
	if fault == nil {
		answer, fault = s.dispatch(who, operation, body)
	}
	if fault != nil {
		fault.send(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(answer) // the client sees a short answer
}

// authenticate checks that the request is signed, and by whom.
func (s *Server) authenticate(r *http.Request) (caller, *Fault) {
	m := credential.FindStringSubmatch(r.Header.Get("Authorization"))
	switch {
	case r.Header.Get("Authorization") == "":
		return caller{}, &Fault{Code: "MissingAuthenticationTokenException", Message: "Missing Authentication Token"}
	case m == nil || r.Header.Get("X-Amz-Date") == "":
		return caller{}, &Fault{Code: "IncompleteSignature", Message: "the request is not signed as Signature Version 4 asks"}
	}
	signed := ";" + m[5] + ";"
	for _, name := range []string{"host", "x-amz-date", "x-amz-target"} {
		if m[4] == "kms" && !strings.Contains(signed, ";"+name+";") {
			return caller{}, &Fault{Code: "IncompleteSignature", Message: name + " is not signed"}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if code := s.tokens[m[1]]; code != "" {
		return caller{}, &Fault{Code: code, Message: "The security token included in the request is refused"}
	}
	return caller{accessKey: m[1], region: m[3]}, nil
}

// fault returns the fault that is due, if any.
func (s *Server) fault(operation string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{operation, "*"} {
		f, ok := s.faults[name]
		if !ok {
			continue
		}
		if f.Times == 1 {
			delete(s.faults, name)
		} else if f.Times > 1 {
			f.Times--
			s.faults[name] = f
		}
		return &f
	}
	return nil
}

// send answers with the fault.
func (f *Fault) send(w http.ResponseWriter, r *http.Request) {
	switch {
	case f.Hang:
		<-r.Context().Done()
		return
	case f.Drop:
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), f.Header)
	status := f.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	if f.Body != "" {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, f.Body)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", "5c2b9f0e-0000-4000-8000-000000000000")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": f.Code, "message": f.Message})
}

// epoch is a time as JSON 1.1 has it: seconds, with a fraction.
type epoch time.Time

// MarshalJSON implements json.Marshaler.
func (e epoch) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(time.Time(e).UnixMilli()) / 1000)
}
