package plugins_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

var testAAD = core.WrapAAD("store", "1")

func mustOpen(t *testing.T, h *plugins.Host, uri core.KeyURI) core.KeyProvider {
	t.Helper()
	p, err := h.Open(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// TestConformance runs every check of a provider against one behind the boundary.
func TestConformance(t *testing.T) {
	h := newHost(t, []string{"memory"}, nil)
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		c := newControl(t)
		one := c.uri("memory", "one")
		return &providertest.Subject{
			Provider:    mustOpen(t, h, one),
			Foreign:     mustOpen(t, h, c.uri("memory", "two")),
			Deny:        c.fault("denied"),
			Unavailable: c.fault("unavailable"),
			Missing:     c.fault("missing"),
			Rotate: func(context.Context) error {
				c.put("versions", "2")
				return nil
			},
			Restart: func(ctx context.Context) (core.KeyProvider, error) { return h.Open(ctx, one) },
			Lacks:   map[providertest.Hook]string{providertest.HookLenient: "there is no service behind this plugin"},
		}
	})
}

// TestPlugintestOpen asserts that the short way of a provider's test works.
func TestPlugintestOpen(t *testing.T) {
	p := plugintest.Open(t, "memory:///one")
	st, err := p.Status(t.Context())
	if err != nil || st.KEKID != "memory:one#1" || len(st.Warnings) != 1 {
		t.Errorf("status %+v, %v", st, err)
	}
}

// TestErrorsCross asserts that each sentinel arrives as itself and as no other, by
// every method, with the text of the plugin.
func TestErrorsCross(t *testing.T) {
	c := newControl(t)
	p := mustOpen(t, newHost(t, []string{"memory"}, nil), c.uri("memory", "one"))
	w, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD)
	if err != nil {
		t.Fatal(err)
	}
	all := []error{core.ErrKeyDenied, core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrUnavailable, core.ErrInvalidCiphertext}
	for fault, want := range map[string]error{
		"denied": core.ErrKeyDenied, "missing": core.ErrKeyMissing, "mismatch": core.ErrKeyMismatch, "invalid": core.ErrInvalidCiphertext,
		"unavailable": core.ErrUnavailable, "throttled": core.ErrUnavailable, "unknown": core.ErrUnavailable,
	} {
		c.put("fault", fault)
		_, generate := p.GenerateDataKey(t.Context(), testAAD)
		_, wrap := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD)
		_, unwrap := p.UnwrapDataKey(t.Context(), w, testAAD)
		_, status := p.Status(t.Context())
		for method, err := range map[string]error{"generate": generate, "wrap": wrap, "unwrap": unwrap, "status": status} {
			for _, s := range all {
				if got := errors.Is(err, s); got != errors.Is(want, s) {
					t.Errorf("%s, %s: %v; matches %q: %t", fault, method, err, s, got)
				}
			}
			if !strings.Contains(err.Error(), faults[fault].Error()) || !strings.Contains(err.Error(), "lockwood-memory") {
				t.Errorf("%s, %s: %q does not hold the plugin's text and name", fault, method, err)
			}
			if after := core.RetryAfter(err); (after == 7*time.Second) != (fault == "throttled") {
				t.Errorf("%s, %s: retry after %v", fault, method, after)
			}
		}
	}
}

// TestConfigurationErrors asserts that what an operator has to mend is told at the
// start, with the plugin's own words.
func TestConfigurationErrors(t *testing.T) {
	h := newHost(t, []string{"memory", "impostor"}, nil)
	for text, says := range map[string]string{
		"memory:///one?regoin=x":                 "unknown option regoin; known are dir, spy, token_file",
		"memory://":                              "the key URI names no key",
		"impostor:///one":                        "a plugin for other:// keys; name it lockwood-other",
		"absent:///one":                          "there are: impostor, memory",
		"memory:///" + strings.Repeat("x", 5000): "at most 4096",
	} {
		uri, err := core.ParseKeyURI(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Open(t.Context(), uri); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40s: %v; want it to say %q", text, err, says)
		}
	}
}
