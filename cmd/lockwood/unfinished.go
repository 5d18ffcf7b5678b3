package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
)

// unfinished is what to know of a rotation or a re-seal that ended with err: nothing is
// removed before what takes its place was seen to work, so it lost nothing. Whether every
// record opens is another question, which may be why it ended, and is asked.
func (v *vault) unfinished(ctx context.Context, err error) string {
	const lost, again = "Nothing is lost by it: what opened before opens still.", "Run the same command again to go on"
	if ctx.Err() != nil || errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrStoreUnavailable) {
		return lost + " " + again
	}
	report, verifyErr := v.credentials.Verify(ctx, nil)
	switch {
	case verifyErr != nil:
		return lost + " Whether every record opens, lockwood credentials verify says once this is mended. " + again
	case len(report.Failed) == 0:
		return "Nothing is lost: every record opens as before. " + again
	}
	first := report.Failed[0]
	return fmt.Sprintf("%s But %d of %d records do not open, the first of them credential %d, %s: %s. lockwood credentials verify names all of them. Mend that, and run the same command again",
		lost, len(report.Failed), report.Records, first.ID, first.Column, core.Text(first.Reason))
}
