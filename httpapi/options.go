package httpapi

import (
	"log/slog"
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
