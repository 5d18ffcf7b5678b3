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
)

func main() {
	short := flag.Bool("short", false, "measure less, for CI: the tables are rougher")
	only := flag.String("only", "", "measure only this: sealing, deposits or startup")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *short, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
