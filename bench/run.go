package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/bench/deposits"
	"github.com/lockwood-kms/lockwood/bench/hostile"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/plugin"
	"github.com/lockwood-kms/lockwood/bench/scale"
	"github.com/lockwood-kms/lockwood/bench/sealing"
	"github.com/lockwood-kms/lockwood/bench/server"
	"github.com/lockwood-kms/lockwood/bench/startup"
)

// part is what can be measured alone. Its binary is empty unless it asked for one.
type part struct {
	name    string
	binary  bool
	measure func(ctx context.Context, binary, dir string) ([]*measure.Table, error)
}

// bench is one run.
type bench struct{ parts []part }

// newBench returns a run of the part named only, or of all.
func newBench(short bool, only string, records, rounds int) (*bench, error) {
	sealPlan := measure.Plan{Rounds: 21, Window: 20 * time.Millisecond}
	depositPlan := measure.Plan{Rounds: 11, Window: 3 * time.Second}
	pluginPlan := measure.Plan{Rounds: 21, Window: 200 * time.Millisecond}
	scalePlan := scale.Plan{Records: records, SQLiteRecords: min(records, 100_000), Rounds: rounds, Deposits: 10_000, Sides: max(1, rounds/3), Swaps: rounds / 3}
	hostileRounds, hostileWindow := 3, 5*time.Second
	starts := 15
	if short {
		scalePlan = scale.Plan{Records: min(records, 20_000), SQLiteRecords: 10_000, Rounds: 3}
		sealPlan = measure.Plan{Rounds: 9, Window: 5 * time.Millisecond}
		depositPlan = measure.Plan{Rounds: 3, Window: time.Second}
		pluginPlan = measure.Plan{Rounds: 9, Window: 50 * time.Millisecond}
		hostileRounds, hostileWindow = 1, 2*time.Second
		starts = 3
	}
	parts := []part{
		{"sealing", false, func(ctx context.Context, _, _ string) ([]*measure.Table, error) {
			return sealing.Run(ctx, sealPlan)
		}},
		{"deposits", true, func(ctx context.Context, binary, dir string) ([]*measure.Table, error) {
			return deposits.Run(ctx, depositPlan, binary, dir)
		}},
		{"tokens", true, func(ctx context.Context, binary, dir string) ([]*measure.Table, error) {
			return deposits.RunTokens(ctx, depositPlan, binary, dir)
		}},
		{"scale", true, func(ctx context.Context, binary, dir string) ([]*measure.Table, error) {
			return scale.Run(ctx, scalePlan, binary, dir)
		}},
		{"startup", true, func(ctx context.Context, binary, dir string) ([]*measure.Table, error) {
			t, err := startup.Run(ctx, starts, binary, dir)
			return []*measure.Table{t}, err
		}},
		{"plugin", true, func(ctx context.Context, binary, dir string) ([]*measure.Table, error) {
			return plugin.Run(ctx, pluginPlan, starts, binary, dir)
		}},
	}
	if !short || only == "hostile" { // it takes a quarter of an hour, in short five minutes
		parts = append(parts, part{"hostile", true, func(ctx context.Context, binary, dir string) ([]*measure.Table, error) {
			return hostile.Run(ctx, hostileRounds, hostileWindow, binary, dir)
		}})
	}
	if only != "" {
		parts = slices.DeleteFunc(parts, func(p part) bool { return p.name != only })
		if len(parts) == 0 {
			return nil, fmt.Errorf("there is nothing called %q to measure; want sealing, deposits, tokens, scale, startup, plugin or hostile", only)
		}
	}
	return &bench{parts}, nil
}

// besideBench returns a run that compares deposits with those of another build.
func besideBench(short bool, other string) *bench {
	plan := measure.Plan{Rounds: 11, Window: 3 * time.Second}
	if short {
		plan = measure.Plan{Rounds: 3, Window: time.Second}
	}
	return &bench{[]part{{"deposits", true, func(ctx context.Context, binary, dir string) ([]*measure.Table, error) {
		t, err := deposits.Beside(ctx, plan, binary, other, dir)
		return []*measure.Table{t}, err
	}}}}
}

// run measures and prints. A figure beyond its bound is printed and is no error.
func (b *bench) run(ctx context.Context, w io.Writer) error {
	dir, err := os.MkdirTemp("", "lockwood-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fmt.Fprintf(w, "%s; %s; %s, %d cores\n\n", time.Now().Format(time.DateOnly), runtime.Version(), processor(), runtime.NumCPU())
	binary := ""
	for _, p := range b.parts {
		if p.binary && binary == "" {
			if binary, err = server.Build(ctx, dir); err != nil {
				return fmt.Errorf("building lockwood: %w", err)
			}
		}
		tables, err := p.measure(ctx, binary, dir)
		if errors.Is(err, deposits.ErrNoServer) {
			fmt.Fprintf(w, "%s: %v\n\n", p.name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("measuring %s: %w", p.name, err)
		}
		for _, t := range tables {
			if err := t.Write(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// processor returns the model of the CPU.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
