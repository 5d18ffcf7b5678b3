package plugins

import (
	"context"
	"errors"
	"maps"
	"slices"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/lockwood-kms/lockwood/plugins/keyproviderpb"
)

// FilePrefix begins the file name of every plugin; the scheme of its key URIs
// follows.
const FilePrefix = "lockwood-"

// The magic cookie tells a plugin that Lockwood started it, so that it can greet
// a person who did. It is no secret and no protection.
const (
	cookieName  = "LOCKWOOD_PLUGIN"
	cookieValue = "f9f3b0c7f1ad4d3c8a0e5d3b6c2a7e94"
)

// serviceName is what go-plugin calls the one service of a plugin.
const serviceName = "keyprovider"

// maxMessageSize bounds a gRPC message in either direction, in bytes. The largest
// that the protocol's limits allow is below 40 KiB.
const maxMessageSize = 64 << 10

// protocol is one version of the protocol, both sides. Several can be served, and
// understood, side by side; go-plugin picks the highest that both know.
type protocol struct {
	goplugin.NetRPCUnsupportedPlugin
	// register adds the service of this version to a plugin's gRPC server.
	register func(*grpc.Server, *server)
	// connect returns the host's view of a plugin that speaks this version.
	connect func(grpc.ClientConnInterface) remote
	// server is what a plugin serves; nil in the host.
	server *server
}

// GRPCServer implements goplugin.GRPCPlugin for the plugin's side.
func (p *protocol) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	if p.server == nil {
		return errors.New("this side of the protocol serves nothing")
	}
	p.register(s, p.server)
	return nil
}

// GRPCClient implements goplugin.GRPCPlugin for the host's side.
func (p *protocol) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return p.connect(conn), nil
}

// protocols are versions of the protocol by number.
type protocols map[int]protocol

// currentProtocols returns the versions that this build of Lockwood speaks.
func currentProtocols() protocols {
	return protocols{1: {
		register: func(s *grpc.Server, impl *server) { keyproviderpb.RegisterKeyProviderServiceServer(s, impl) },
		connect:  func(conn grpc.ClientConnInterface) remote { return newClient(conn) },
	}}
}

// numbers returns the version numbers in order.
func (p protocols) numbers() []int { return slices.Sorted(maps.Keys(p)) }

// pluginSets returns the versions in go-plugin's form; s is nil in the host.
func (p protocols) pluginSets(s *server) map[int]goplugin.PluginSet {
	sets := make(map[int]goplugin.PluginSet, len(p))
	for version, protocol := range p {
		protocol.server = s
		sets[version] = goplugin.PluginSet{serviceName: &protocol}
	}
	return sets
}
