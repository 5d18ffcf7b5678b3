package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/sealing"
)

func run(ctx context.Context, w io.Writer, short bool, only string) error {
	plan := measure.Plan{Rounds: 21, Window: 20 * time.Millisecond}
	if short {
		plan = measure.Plan{Rounds: 9, Window: 5 * time.Millisecond}
	}
	tables, err := sealing.Run(ctx, plan)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := t.Write(w); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	return nil
}
