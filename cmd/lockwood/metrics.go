package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/fleet"
)

// ringCollector exports a ring's status. It asks the ring's memory only, so a
// scrape costs the provider and the database nothing.
type ringCollector struct {
	ring *keyring.Ring

	state, unlocked, enabled, outage, since, anomalies *prometheus.Desc
}

func newRingCollector(ring *keyring.Ring) *ringCollector {
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

// providerMetrics measures the calls to the current key provider.
type providerMetrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newProviderMetrics() *providerMetrics {
	return &providerMetrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockwood_provider_calls_total", Help: "Calls to the current key provider, by operation and outcome.",
		}, []string{"op", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lockwood_provider_call_seconds", Help: "How long calls to the current key provider took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"op"}),
	}
}

// observe is keyring.Options.Observe.
func (m *providerMetrics) observe(operation, outcome string, took time.Duration) {
	m.calls.WithLabelValues(operation, outcome).Inc()
	m.seconds.WithLabelValues(operation).Observe(took.Seconds())
}

// newFleetCollector exports what this instance saw of the fleet last.
func newFleetCollector(w *fleet.Watch) prometheus.Collector {
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
