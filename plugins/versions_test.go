package plugins_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

// TestVersionsAreNegotiated has old and new hosts meet old and new plugins: they
// settle on the highest version that both speak, or say clearly that there is none.
func TestVersionsAreNegotiated(t *testing.T) {
	for _, c := range []struct {
		scheme string // which plugin: it speaks version one, two or both
		host   []int
		want   int // 0: none in common
	}{
		{"one", []int{1}, 1}, {"one", []int{1, 2}, 1}, {"one", []int{2}, 0},
		{"two", []int{1}, 0}, {"two", []int{1, 2}, 2}, {"two", []int{2}, 2},
		{"both", []int{1}, 1}, {"both", []int{1, 2}, 2}, {"both", []int{2}, 2},
	} {
		opts := &plugintest.Options{Host: plugins.WithVersions(plugins.HostOptions{}, c.host...)}
		h := newHost(t, []string{c.scheme}, opts)
		p, err := h.Open(t.Context(), newControl(t).uri(c.scheme, "key"))
		if c.want == 0 {
			if err == nil || !strings.Contains(err.Error(), "install releases that have one in common") {
				t.Errorf("plugin %s, host %v: %v", c.scheme, c.host, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("plugin %s, host %v: %v", c.scheme, c.host, err)
		}
		st, err := p.Status(t.Context())
		if err != nil || slices.Contains(st.Warnings, "version 2") != (c.want == 2) {
			t.Errorf("plugin %s, host %v: status %+v, %v; want version %d", c.scheme, c.host, st, err, c.want)
		}
		list, err := h.List(t.Context())
		if err != nil || len(list) != 1 || list[0].Protocol != c.want {
			t.Errorf("plugin %s, host %v: listed as %+v, %v", c.scheme, c.host, list, err)
		}
	}
}
