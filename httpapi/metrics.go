package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lockwood-kms/lockwood/httpapi/internal/wire"
)

// metrics counts requests. No label has a value that a client can choose.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	denials  *prometheus.CounterVec
	// connections is the listener, once the server serves one.
	connections atomic.Pointer[wire.Listener]
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockwood_http_requests_total",
			Help: "Answered HTTP requests.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "lockwood_http_request_duration_seconds",
			Help:    "Time from the end of the request's header to the response.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route"}),
		denials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockwood_http_denied_total",
			Help: "Requests without a valid token, by the reason, which the client is not told.",
		}, []string{"reason"}),
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lockwood_http_connections",
		Help: "Open HTTP connections.",
	}, func() float64 { n, _ := m.counts(); return float64(n) })
	evicted := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "lockwood_http_connections_evicted_total",
		Help: "HTTP connections closed because as many were open as may be.",
	}, func() float64 { _, n := m.counts(); return float64(n) })
	return m, errors.Join(reg.Register(m.requests), reg.Register(m.seconds), reg.Register(m.denials),
		reg.Register(open), reg.Register(evicted))
}

func (m *metrics) counts() (open int, evicted uint64) {
	if l := m.connections.Load(); l != nil {
		return l.Counts()
	}
	return 0, 0
}

func (m *metrics) observe(route, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, methodLabel(method), strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

// methodLabel returns a method as it may stand in logs and metrics.
func methodLabel(method string) string {
	if implemented(method) || method == http.MethodTrace || method == http.MethodConnect {
		return method
	}
	return "other"
}
