package plugins

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"google.golang.org/grpc"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins/keyproviderpb"
)

// The protocol versions of the tests: 2 is 1 under another service name, so that
// a side that speaks 1 only cannot talk to it by accident, and marks its KEK IDs.

// WithVersions makes a host speak these versions of the protocol.
func WithVersions(o HostOptions, versions ...int) HostOptions {
	o.versions = testProtocols(versions)
	return o
}

// ServeVersions is Serve for a plugin that speaks these versions of the protocol.
func ServeVersions(scheme string, open core.Factory, versions ...int) {
	serve(&server{scheme: scheme, open: open, version: "test"}, testProtocols(versions))
}

func testProtocols(versions []int) protocols {
	all := currentProtocols()
	all[2] = protocol{
		register: func(s *grpc.Server, impl *server) {
			desc := keyproviderpb.KeyProviderService_ServiceDesc
			desc.ServiceName = strings.Replace(desc.ServiceName, ".v1.", ".v2.", 1)
			s.RegisterService(&desc, impl)
		},
		connect: func(conn grpc.ClientConnInterface) remote { return secondVersion{newClient(renamed{conn})} },
	}
	chosen := protocols{}
	for _, v := range versions {
		chosen[v] = all[v]
	}
	return chosen
}

// renamed calls the methods of the service of version 2.
type renamed struct{ grpc.ClientConnInterface }

func (r renamed) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return r.ClientConnInterface.Invoke(ctx, strings.Replace(method, ".v1.", ".v2.", 1), args, reply, opts...)
}

type secondVersion struct{ remote }

func (s secondVersion) status(ctx context.Context) (core.Status, error) {
	st, err := s.remote.status(ctx)
	st.Warnings = append(st.Warnings, "version 2")
	return st, err
}

// ParseLock parses a lock file and returns its pins by scheme.
func ParseLock(b []byte) (map[string]pin, error) {
	l, err := parseLock(b)
	if err != nil {
		return nil, err
	}
	return l.Plugins, nil
}

// ToStatus and FromStatus are how an error crosses.
var (
	ToStatus   = toStatus
	FromStatus = fromStatus
)

// RegisterTestServer adds the service of version 1 to any gRPC server.
func RegisterTestServer(s *grpc.Server, scheme string, open core.Factory) {
	keyproviderpb.RegisterKeyProviderServiceServer(s, &server{scheme: scheme, open: open, version: "test"})
}

// NewLogWriter returns what takes a plugin's standard error.
func NewLogWriter(log *slog.Logger) io.Writer {
	return newLogWriter(log, newLogBudget(), slog.LevelError)
}
