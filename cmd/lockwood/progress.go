package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/rotation"
)

// progressLine is one line of progress, on standard error where that is no terminal.
type progressLine struct {
	Event   string    `json:"event"` // "reseal", "verify", "copy" or "compare"
	Time    time.Time `json:"time"`
	Total   int64     `json:"total"` // an estimate, and never less than what was done
	Done    int64     `json:"done"`
	Skipped int64     `json:"skipped"`
	Failed  int64     `json:"failed"`
	Rate    float64   `json:"rate"`         // credentials a second since the beginning
	Left    float64   `json:"seconds_left"` // zero until all of Total is known

	known bool // whether Total is all
}

func progressOf(r rotation.Run, now time.Time) progressLine {
	p := progressLine{Event: "reseal", Time: now.UTC(), Total: r.Total, Done: r.Done, Skipped: r.Skipped, Failed: r.Failed}
	p.judge(r.UpdatedAt.Sub(r.StartedAt), r.Planned)
	return p
}

// judge fills in the rate and the time left, if the total is known.
func (p *progressLine) judge(taken time.Duration, known bool) {
	p.Total, p.known = max(p.Total, p.passed()), known
	if s := taken.Seconds(); s > 0 {
		p.Rate = float64(p.Done) / s
	}
	if p.Rate > 0 && known {
		p.Left = float64(p.Total-p.passed()) / p.Rate
	}
}

// passed is how many credentials need nothing more.
func (p *progressLine) passed() int64 { return p.Done + p.Skipped + p.Failed }

// progress shows how far a command is: a line that changes on a terminal, and else a
// line of JSON a second, both on standard error.
type progress struct {
	c     *cli
	event string // of what is under way
	began time.Time
	told  time.Time
}

func (c *cli) progress() *progress { return &progress{c: c} }

// resealing shows a re-seal.
func (p *progress) resealing(r rotation.Run) { p.show(progressOf(r, time.Now()), r.Ended) }

// verifying shows how many credentials of how many were opened to verify.
func (p *progress) verifying(done, of int64) { p.passing("verify", done, of) }

// copying shows how many credentials of how many were copied, or compared.
func (p *progress) copying(step relocation.Step, done, of int64) { p.passing(string(step), done, of) }

func (p *progress) passing(event string, done, of int64) {
	now := time.Now()
	line := progressLine{Event: event, Time: now.UTC(), Total: of, Done: done}
	taken := time.Duration(0)
	if p.event == line.Event {
		taken = now.Sub(p.began)
	}
	line.judge(taken, true)
	p.show(line, done >= of)
}

// drawn is how long a line of progress on a terminal stays as it is.
const drawn = 100 * time.Millisecond

func (p *progress) show(line progressLine, last bool) {
	if p.event != line.Event {
		p.end()
		p.event, p.began, p.told = line.Event, time.Now(), time.Time{}
	}
	interval := time.Second
	if p.c.screen.terminal() {
		interval = drawn
	}
	if !last && time.Since(p.told) < interval {
		return
	}
	p.told = time.Now()
	if p.c.screen.terminal() {
		p.c.screen.show(line.within(p.c.screen.columns() - 1))
		return
	}
	_ = json.NewEncoder(plain.JSON(p.c.screen)).Encode(line)
}

// end takes the line away.
func (p *progress) end() {
	if p.c.screen.terminal() {
		p.c.screen.show("")
	}
}

// within says how far it is in at most so many columns, or nothing where they are too
// few.
func (p *progressLine) within(columns int) string {
	word := map[string]string{"reseal": "sealing anew", "verify": "verifying", "copy": "copying", "compare": "comparing"}[p.Event]
	share, of, left := "", "", ""
	if p.known {
		percent := int64(100)
		if p.Total > 0 {
			percent = p.passed() * 100 / p.Total
		}
		share = fmt.Sprintf(" %d %%", percent)
		of = fmt.Sprintf(" of %d", p.Total)
	}
	if p.Left >= 1 {
		left = ", " + time.Duration(p.Left*float64(time.Second)).Round(time.Second).String() + " left"
	}
	count := fmt.Sprintf(" %d%s", p.passed(), of)
	rate := fmt.Sprintf(", %.0f/s", p.Rate)
	for _, line := range []string{word + share + count + rate + left, word + count + left, word + cmp.Or(share, count), strings.TrimSpace(cmp.Or(share, count))} {
		if len(line) <= columns {
			return line
		}
	}
	return ""
}

// tellNeeds says what copies of the database from before need, before anything that
// opens records is removed.
func (c *cli) tellNeeds(needs []rotation.BackupNeed) {
	if c.screen.terminal() {
		rotation.PrintNeeds(c.stderr, needs)
		return
	}
	if len(needs) > 0 {
		_ = json.NewEncoder(plain.JSON(c.screen)).Encode(map[string]any{"event": "backups", "time": time.Now().UTC(), "needs": needs})
	}
}
