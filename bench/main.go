// Command bench measures Lockwood beside what it is made of and beside others,
// and prints tables of ratios. It is a module of its own so that what it compares
// with is no dependency of the product; README.md says how to read the tables.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/lockwood-kms/lockwood/bench/baseline"
	"github.com/lockwood-kms/lockwood/bench/hostile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func command(ctx context.Context) error {
	if len(os.Args) > 1 && os.Args[1] == baseline.Command {
		return baseline.Main(ctx)
	}
	if len(os.Args) > 3 && os.Args[1] == hostile.Command {
		return hostile.Main(ctx, os.Args[2:])
	}
	short := flag.Bool("short", false, "measure less, for CI: the figures are rougher")
	only := flag.String("only", "", "measure only this: sealing, deposits, tokens, scale, startup, plugin or hostile")
	records := flag.Int("records", 100_000, "how many credentials the part scale fills PostgreSQL with")
	rounds := flag.Int("rounds", 9, "how often the part scale seals them anew")
	beside := flag.String("beside", "", "a binary of another build: measure only deposits, beside it")
	flag.Parse()
	b, err := newBench(*short, *only, *records, *rounds)
	if *beside != "" && err == nil {
		b = besideBench(*short, *beside)
	}
	if err != nil {
		return err
	}
	return b.run(ctx, os.Stdout)
}
