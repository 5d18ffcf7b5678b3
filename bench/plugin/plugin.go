// Package plugin measures what it costs to have the KEK in a KMS, behind a plugin:
// the real program lockwood-awskms, against an AWS KMS for tests on the loopback
// interface. What a KMS in a region adds is the way there, the same for all.
package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/bench/kms"
	"github.com/lockwood-kms/lockwood/bench/load"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/server"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/providers/awskms"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// The bounds of a start with a plugin, and of the memory that each of the two processes
// holds afterwards.
const (
	mostStart  = 1000 // milliseconds
	mostMemory = 40   // MiB
)

// settling is how long a plugin has nothing to do before its memory is read.
const settling = 2 * time.Second

// Run measures the binary, whose plugins stand in dir/plugins, and returns the
// tables.
func Run(ctx context.Context, plan measure.Plan, starts int, binary, dir string) ([]*measure.Table, error) {
	k := kms.Start()
	defer k.Close()
	host, env, err := k.Pin(dir)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	unwraps, err := unwrapTable(ctx, plan, k, host)
	if err != nil {
		return nil, err
	}
	services, err := kms.Services(ctx, dir)
	if err != nil {
		return nil, err
	}
	t := newStartTable(starts)
	for _, s := range services {
		defer s.Close()
		if err := addStarts(ctx, t, starts, s, env, binary, dir); err != nil {
			return nil, err
		}
	}
	return []*measure.Table{unwraps, t}, nil
}

// unwrapTable compares an unwrap through the plugin with the same provider in
// process.
func unwrapTable(ctx context.Context, plan measure.Plan, k *kms.KMS, host *plugins.Host) (*measure.Table, error) {
	for _, variable := range k.Env { // the provider in process reads its credentials where a plugin does
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	uri, err := core.ParseKeyURI(k.URI)
	if err != nil {
		return nil, err
	}
	inProcess, err := awskms.Open(ctx, uri)
	if err != nil {
		return nil, err
	}
	defer inProcess.Close()
	throughPlugin, err := host.Open(ctx, uri)
	if err != nil {
		return nil, err
	}
	aad := core.WrapAAD("bench", "1")
	made, err := inProcess.GenerateDataKey(ctx, aad)
	if err != nil {
		return nil, err
	}
	var failed error
	unwrap := func(p core.KeyProvider) measure.Work {
		return func(n int) {
			for range n {
				if _, err := p.UnwrapDataKey(ctx, made.Wrapped, aad); err != nil {
					failed = err
				}
			}
		}
	}
	s := plan.Run(measure.Wall, unwrap(inProcess), unwrap(throughPlugin))
	if failed != nil {
		return nil, failed
	}
	ratio := s[1].Over(s[0])
	t := &measure.Table{
		Title:  "Unwrapping a data key in AWS KMS (on loopback)",
		Header: []string{"provider in process, µs", "through the plugin, µs", "ratio", "quartiles"},
		Notes:  []string{fmt.Sprintf("Time on the wall, one caller, medians of %d interleaved pairs; nearly all of it is HTTP to the KMS, and in the plugin gRPC with mutual TLS as well.", plan.Rounds)},
	}
	t.Add(fmt.Sprintf("%.0f", s[0].Median()/1000), fmt.Sprintf("%.0f", s[1].Median()/1000), fmt.Sprintf("%.2f", ratio.Median()), ratio.Spread(2))
	return t, nil
}

func newStartTable(starts int) *measure.Table {
	return &measure.Table{
		Title:  "Start and memory with a plugin, SQLite, key services on loopback",
		Header: []string{"key service", "figure", "median", "quartiles", "bound", ""},
		Notes: []string{fmt.Sprintf("%d starts, each on a fresh file. Memory is what a process has resident %v after the first deposit. "+
			"The plugin's program is in memory besides, and is not resident where it does not run.", starts, settling)},
	}
}

// addStarts measures the service from start to the first answered deposit, with a
// data key to be made in a key service, and the memory of both processes.
func addStarts(ctx context.Context, t *measure.Table, starts int, s *kms.Service, env []string, binary, dir string) error {
	env = append(slices.Clone(env), s.Env...)
	env = append(env, "FOREST_EXECUTOR_KEY_PROVIDER="+s.URI) // the last one counts
	var ms, host, plugin measure.Sample
	for range starts {
		a, b, c, err := startOnce(ctx, env, binary, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		ms, host, plugin = append(ms, a), append(host, b), append(plugin, c)
	}
	t.Add(s.Name, "start to first answered deposit, ms", fmt.Sprintf("%.0f", ms.Median()), ms.Spread(0), fmt.Sprintf("< %d", mostStart), measure.Verdict(ms.Median() < mostStart))
	addMemory(t, "service", host)
	addMemory(t, "plugin", plugin)
	return nil
}

func addMemory(t *measure.Table, of string, m measure.Sample) {
	t.Add("", "idle resident memory of the "+of+", MiB", fmt.Sprintf("%.1f", m.Median()), m.Spread(1), fmt.Sprintf("< %d", mostMemory), measure.Verdict(m.Median() < mostMemory))
}

// startOnce measures one start on a fresh file.
func startOnce(ctx context.Context, env []string, binary, root string) (ms, host, plugin float64, err error) {
	dir, err := os.MkdirTemp(root, "plugin-start")
	if err != nil {
		return 0, 0, 0, err
	}
	secret := envkey.Generate()
	request, err := load.Deposit(secret, 1, "first")
	if err != nil {
		return 0, 0, 0, err
	}
	p, err := server.Start(ctx, dir, append([]string{
		"DATABASE_URL=sqlite:" + filepath.Join(dir, "lockwood.db"), "ADMIN_ADDR=", "FOREST_AUTH_SECRET=" + secret,
	}, env...), binary, "serve")
	if err != nil {
		return 0, 0, 0, err
	}
	defer p.Stop()
	if err := p.Await(func() bool { return load.Accepted(p.Addr, request) }); err != nil {
		return 0, 0, 0, err
	}
	ms = float64(time.Since(p.Began).Microseconds()) / 1000
	time.Sleep(settling)
	own, children, err := p.ResidentWithChildren()
	return ms, float64(own) / (1 << 20), float64(children) / (1 << 20), err
}
