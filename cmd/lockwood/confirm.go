package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lockwood-kms/lockwood/internal/plain"
)

// errUnconfirmed is the error of a command whose question was not answered with its
// sentence.
var errUnconfirmed = errors.New("not confirmed, and nothing was changed; where nobody can type, say --yes")

// confirm asks the operator, who may have said yes already, to type a sentence after
// warning. It returns errUnconfirmed for any other answer, and ends with ctx.
func (c *cli) confirm(ctx context.Context, yes bool, warning, sentence string) error {
	if yes {
		return nil
	}
	plain.Fprintf(c.stderr, "%s To go on, type: %s\n> ", plain.Prose(warning), sentence)
	answer, err := readLine(ctx, os.Stdin)
	if ctx.Err() != nil {
		plain.Fprintf(c.stderr, "\n")
		return &advisedError{err, "nothing was changed"}
	}
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if strings.TrimSpace(answer) != sentence {
		return usageError(errUnconfirmed)
	}
	return nil
}

// readLine returns the next line of r, or what there is of one at the end of r. When
// ctx ends it returns at once, and leaves r to nobody else.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := bufio.NewReader(r).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
