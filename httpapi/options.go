package httpapi

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options are the optional settings of a Server.
type Options struct {
	// Version is sent as X-Executor-Version. Empty is "dev".
	Version string

	// AllowLocalTokenEndpoints permits http and loopback token endpoints, for
	// development.
	AllowLocalTokenEndpoints bool

	// AllowUniqueLocalTokenEndpoints permits token endpoints at unique local
	// addresses (fc00::/7), but for the metadata services among them.
	AllowUniqueLocalTokenEndpoints bool

	// AccessTokens gives out access tokens. Nil leaves out their routes.
	AccessTokens AccessTokens

	// Tools lists the tools of MCP servers. Nil leaves out their route.
	Tools Tools

	// Servers finds the MCP server of a resource in a token exchange. Nil finds none.
	Servers Servers

	// Logger receives one line for each request, and failures. Nil is
	// slog.Default. Wrap its handler with LogHandler to have the request ID in
	// the lines of every package.
	Logger *slog.Logger

	// Registerer takes the metrics. Nil keeps them to the server.
	Registerer prometheus.Registerer

	// RatePerUser is how many requests a second a user may send in the long
	// run, and RateBurst how many at once. A rate of 0 is no limit; a burst of 0
	// is two seconds' worth, at least 1.
	RatePerUser float64
	RateBurst   int

	// MaxConnections is how many connections may be open at the same time. When
	// all places are taken, a new connection takes that of the oldest one without
	// a valid token, or of an idle one. A user may have a quarter as many requests served at the
	// same time. 0 is 1000.
	MaxConnections int

	// MaxMemory is how many bytes all requests together may hold, as an estimate
	// that counts each byte of a body eight times, for its copies. A request that
	// finds no memory is answered 503. A user may hold a quarter of it, but at
	// least 17 MiB, and MaxMemory is not less than that. 0 is 64 MiB.
	MaxMemory int64

	// TrustedProxies are the addresses of proxies whose X-Forwarded-For and
	// X-Request-Id are taken for true.
	TrustedProxies []netip.Prefix

	// ReadHeaderTimeout, ReadTimeout, WriteTimeout and IdleTimeout are those of
	// http.Server. 0 is 10, 30, 60 and 75 seconds.
	ReadHeaderTimeout, ReadTimeout, WriteTimeout, IdleTimeout time.Duration

	// RequestTimeout ends the context of a request. 0 is 30 seconds.
	RequestTimeout time.Duration

	// DrainDelay is how long Shutdown goes on accepting requests, with
	// "draining" in /health and a 503 in /readyz, so that load balancers notice.
	DrainDelay time.Duration

	// Now is the clock that tokens are judged by. Nil is time.Now.
	Now func() time.Time
}

// withDefaults returns a copy in which every zero value has its meaning.
func (o *Options) withDefaults() Options {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Version == "" {
		opts.Version = "dev"
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Registerer == nil {
		opts.Registerer = prometheus.NewRegistry()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.MaxConnections <= 0 {
		opts.MaxConnections = 1000
	}
	if opts.MaxMemory <= 0 {
		opts.MaxMemory = 64 << 20
	}
	setDefault(&opts.ReadHeaderTimeout, 10*time.Second)
	setDefault(&opts.ReadTimeout, 30*time.Second)
	setDefault(&opts.WriteTimeout, 60*time.Second)
	setDefault(&opts.IdleTimeout, 75*time.Second)
	setDefault(&opts.RequestTimeout, 30*time.Second)
	return opts
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}
