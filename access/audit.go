package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
)

// metrics are those of a service.
type metrics struct {
	grants *prometheus.HistogramVec // by outcome
	issued *prometheus.CounterVec   // by source
	lost   prometheus.Counter

	revocations *prometheus.CounterVec // by outcome
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		grants: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lockwood_grants_seconds", Help: "Refresh tokens presented, by what came of it, and how long that took.",
			Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20},
		}, []string{"outcome"}),
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockwood_access_tokens_issued_total", Help: "Access tokens given out, stored ones and those that were just fetched.",
		}, []string{"source"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "lockwood_leases_lost_total", Help: "Leases that were lost before a refresh token was presented.",
		}),
		revocations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockwood_revocations_total", Help: "Grants that were to be revoked at their server, by what came of it.",
		}, []string{"outcome"}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.grants, m.issued, m.lost, m.revocations} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// outcomeOf is a verdict as a word of its own.
func outcomeOf(v protocol.Verdict) string {
	if v == protocol.None {
		return "granted"
	}
	return string(v)
}

// granted accounts for a token that was presented, or would have been.
func (s *Service) granted(ctx context.Context, f *flight, took time.Duration) {
	a := &f.answer
	outcome := outcomeOf(a.Verdict)
	s.metrics.grants.WithLabelValues(outcome).Observe(took.Seconds())
	event := "access_token_refreshed"
	if a.Verdict.Dead() {
		event = "needs_reauth"
	}
	attrs := append([]slog.Attr{slog.String("event", event)}, f.attrs(
		slog.String("outcome", outcome), slog.Int("status", a.Status), slog.Bool("rotated", a.RefreshToken != nil), slog.String("took", took.Round(time.Microsecond).String()),
	)...)
	if a.Code != "" {
		attrs = append(attrs, slog.String("code", a.Code))
	}
	if a.Err != nil {
		attrs = append(attrs, errorAttr(a.Err))
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "audit", attrs...)
}

// issued accounts for an access token that is given out.
func (s *Service) issued(ctx context.Context, key Key, source string, d Demand) {
	if d.anew { // it was fetched for nobody
		return
	}
	s.metrics.issued.WithLabelValues(source).Inc()
	s.log.LogAttrs(ctx, slog.LevelDebug, "audit", slog.String("event", "access_token_issued"),
		slog.Int64("user_id", key.UserID), slog.String("mcp_server_id", key.MCPServerID), slog.String("source", source))
}

// attrs says which credential a line is about.
func (f *flight) attrs(more ...slog.Attr) []slog.Attr {
	return append([]slog.Attr{
		slog.Int64("user_id", f.key.UserID), slog.String("mcp_server_id", f.key.MCPServerID),
		slog.Int64("credential_id", f.claim.CredentialID), slog.Int64("generation", f.state.Generation()),
	}, more...)
}

// errorAttr is an error whose text may have come from elsewhere.
func errorAttr(err error) slog.Attr {
	return slog.String("error", fmt.Sprint(core.Text(err.Error())))
}

// levelOf is that of an error that an operator has to see.
func levelOf(err error) slog.Level {
	if errors.Is(err, core.ErrStoreUnavailable) {
		return slog.LevelWarn
	}
	return slog.LevelError
}
