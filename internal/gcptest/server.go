package gcptest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path"
	"strings"
	"sync"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Names of what every server has.
const (
	// Project is the project of all keys.
	Project = "lockwood-test"
	// Location has Cloud HSM.
	Location = "europe-west3"
	// LocationWithoutHSM has not.
	LocationWithoutHSM = "nowhere-west1"
	// KeyRing is the key ring of all keys.
	KeyRing = "ring"
)

// Options are the optional parts of NewServer.
type Options struct {
	// TLS makes the server speak TLS; nil means plain text.
	TLS *tls.Config
	// Authenticate judges the bearer token of a call, "" if there is none, and
	// returns an error if the service does not know it. nil accepts every call.
	// The context is the call's, with its metadata.
	Authenticate func(ctx context.Context, token string) error
	// NoIAM leaves out the IAM methods, as emulators do.
	NoIAM bool
	// NoChecksums makes a service that neither verifies nor sends any CRC32C.
	NoChecksums bool
}

// Server is a Cloud KMS. Its methods are safe for concurrent use.
type Server struct {
	kmspb.UnimplementedKeyManagementServiceServer

	// Addr is where the server listens, as host:port.
	Addr string

	opts     Options
	grpc     *grpc.Server
	listener *listener

	mu      sync.Mutex
	keys    map[string]*Key
	calls   map[string]int
	revoked map[string]int // by permission
	faults  []*hook
}

// NewServer starts a server on a free loopback port. Nil options work.
func NewServer(opts *Options) (*Server, error) {
	if opts == nil {
		opts = &Options{}
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	s := &Server{
		Addr: tcp.Addr().String(), opts: *opts, listener: &listener{Listener: tcp},
		keys: make(map[string]*Key), calls: make(map[string]int), revoked: make(map[string]int),
	}
	serverOptions := []grpc.ServerOption{grpc.UnaryInterceptor(s.intercept)}
	if opts.TLS != nil {
		serverOptions = append(serverOptions, grpc.Creds(credentials.NewTLS(opts.TLS)))
	}
	s.grpc = grpc.NewServer(serverOptions...)
	kmspb.RegisterKeyManagementServiceServer(s.grpc, s)
	if !opts.NoIAM {
		iampb.RegisterIAMPolicyServer(s.grpc, &policies{server: s})
	}
	go func() { _ = s.grpc.Serve(s.listener) }() // ends with Close
	return s, nil
}

// Close stops the server and breaks every connection.
func (s *Server) Close() { s.grpc.Stop() }

// Calls returns how often a method was called, such as "Decrypt".
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// intercept is the way of every call: what fails before the service sees it, what
// is altered on the way, and who calls.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	hooks := s.enter(method)
	for _, h := range hooks {
		if err := s.suffer(ctx, h.fault); err != nil {
			return nil, err
		}
		if h.request != nil {
			h.request(req)
		}
	}
	if err := s.authenticate(ctx); err != nil {
		return nil, err
	}
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, h := range hooks {
		if h.response != nil {
			h.response(resp)
		}
	}
	return resp, nil
}

// enter counts a call and returns the hooks it meets.
func (s *Server) enter(method string) []*hook {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[method]++
	var met []*hook
	for _, h := range s.faults {
		if h.method != "*" && h.method != method || h.left == 0 {
			continue
		}
		h.left--
		met = append(met, h)
	}
	return met
}

// authenticate checks the bearer token, as RFC 6750, section 2.1 has it.
func (s *Server) authenticate(ctx context.Context) error {
	if s.opts.Authenticate == nil {
		return nil
	}
	token := ""
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if values := md.Get("authorization"); len(values) == 1 {
			token = strings.TrimPrefix(values[0], "Bearer ")
		}
	}
	if err := s.opts.Authenticate(ctx, token); err != nil {
		return withDetails(status.New(codes.Unauthenticated, "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential."),
			info("ACCESS_TOKEN_TYPE_UNSUPPORTED", nil)).Err()
	}
	return nil
}

// listener remembers its connections, so that they can be broken.
type listener struct {
	net.Listener

	mu    sync.Mutex
	conns []net.Conn
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, conn)
	return conn, nil
}

// breakAll closes every connection, as a network does that fails.
func (l *listener) breakAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close() // it may be closed already
	}
	l.conns = nil
}
