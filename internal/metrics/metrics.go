// Package metrics is what a service exports to Prometheus about its ring, its key
// provider and the instances beside it. It asks memory only: a scrape costs neither the
// provider nor the database anything.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/fleet"
)

// ringCollector exports a ring's status.
type ringCollector struct {
	ring *keyring.Ring

	state, unlocked, enabled, outage, since, anomalies *prometheus.Desc
}

// Ring returns a collector of the ring's status. It is safe for concurrent use.
func Ring(ring *keyring.Ring) prometheus.Collector {
	return &ringCollector{
		ring:      ring,
		state:     prometheus.NewDesc("lockwood_ring_state", "1 for the state that the ring is in.", []string{"state"}, nil),
		unlocked:  prometheus.NewDesc("lockwood_data_keys_unlocked", "Data keys in memory.", nil, nil),
		enabled:   prometheus.NewDesc("lockwood_data_keys_enabled", "Data keys that may open records.", nil, nil),
		outage:    prometheus.NewDesc("lockwood_key_outage_budget_seconds", "How long data keys stay in memory if the key provider does not answer from now on.", nil, nil),
		since:     prometheus.NewDesc("lockwood_provider_outage_seconds", "How long the key provider has not answered as it should; 0 while it does.", nil, nil),
		anomalies: prometheus.NewDesc("lockwood_ring_anomalies_total", "How often the database named a primary data key that is retired: it was restored, or somebody edits it.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *ringCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.state, c.unlocked, c.enabled, c.outage, c.since, c.anomalies} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c *ringCollector) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.ring.Status()
	for _, state := range keyring.States() {
		value := 0.0
		if state == s.State {
			value = 1
		}
		gauge(c.state, value, state)
	}
	gauge(c.unlocked, float64(s.Unlocked))
	gauge(c.enabled, float64(s.Enabled))
	gauge(c.outage, s.OutageBudgetLeft.Seconds())
	since := 0.0
	if !s.OutageSince.IsZero() {
		since = time.Since(s.OutageSince).Seconds()
	}
	gauge(c.since, since)
	metrics <- prometheus.MustNewConstMetric(c.anomalies, prometheus.CounterValue, float64(s.Anomalies))
}

// ProviderCalls measures the calls to the current key provider. It is safe for concurrent
// use.
type ProviderCalls struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// NewProviderCalls returns a measurement without a call.
func NewProviderCalls() *ProviderCalls {
	return &ProviderCalls{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockwood_provider_calls_total", Help: "Calls to the current key provider, by operation and outcome.",
		}, []string{"op", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lockwood_provider_call_seconds", Help: "How long calls to the current key provider took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"op"}),
	}
}

// Observe is keyring.Options.Observe.
func (m *ProviderCalls) Observe(operation, outcome string, took time.Duration) {
	m.calls.WithLabelValues(operation, outcome).Inc()
	m.seconds.WithLabelValues(operation).Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (m *ProviderCalls) Describe(descs chan<- *prometheus.Desc) {
	m.calls.Describe(descs)
	m.seconds.Describe(descs)
}

// Collect implements prometheus.Collector.
func (m *ProviderCalls) Collect(metrics chan<- prometheus.Metric) {
	m.calls.Collect(metrics)
	m.seconds.Collect(metrics)
}

// Fleet returns a collector of what this instance saw of the others last. It is safe for
// concurrent use.
func Fleet(w *fleet.Watch) prometheus.Collector {
	return fleetCollector{w,
		prometheus.NewDesc("lockwood_instances_live", "Instances that run on this store.", nil, nil),
		prometheus.NewDesc("lockwood_fleet_drift", "Differences between the instances where there should be none.", nil, nil),
	}
}

type fleetCollector struct {
	watch       *fleet.Watch
	live, drift *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c fleetCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.live
	descs <- c.drift
}

// Collect implements prometheus.Collector.
func (c fleetCollector) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.MustNewConstMetric(c.live, prometheus.GaugeValue, float64(c.watch.Live()))
	metrics <- prometheus.MustNewConstMetric(c.drift, prometheus.GaugeValue, float64(len(c.watch.Drift())))
}
