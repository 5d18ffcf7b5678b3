package main

import (
	"encoding/json"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/rotation"
)

// progressLine is one line of progress, on standard error where that is no terminal.
type progressLine struct {
	Event   string    `json:"event"` // "reseal" or "verify"
	Time    time.Time `json:"time"`
	Total   int64     `json:"total"`
	Done    int64     `json:"done"`
	Skipped int64     `json:"skipped"`
	Failed  int64     `json:"failed"`
	Rate    float64   `json:"rate"`         // credentials a second since the beginning
	Left    float64   `json:"seconds_left"` // zero until all of Total is known
}

func progressOf(r rotation.Run, now time.Time) progressLine {
	p := progressLine{Event: "reseal", Time: now.UTC(), Total: r.Total, Done: r.Done, Skipped: r.Skipped, Failed: r.Failed}
	p.judge(r.UpdatedAt.Sub(r.StartedAt), r.Planned)
	return p
}

// judge fills in the rate and the time left, if the total is known.
func (p *progressLine) judge(taken time.Duration, known bool) {
	if s := taken.Seconds(); s > 0 {
		p.Rate = float64(p.Done) / s
	}
	if p.Rate > 0 && known {
		p.Left = float64(max(0, p.Total-p.Done-p.Skipped-p.Failed)) / p.Rate
	}
}

// progress shows how far a command is: a bar on a terminal, and else a line of JSON a
// second, both on standard error.
type progress struct {
	c     *cli
	event string // of what is under way
	began time.Time
	told  time.Time
	bar   *progressbar.ProgressBar
}

func (c *cli) progress() *progress { return &progress{c: c} }

// resealing shows a re-seal.
func (p *progress) resealing(r rotation.Run) { p.show(progressOf(r, time.Now()), r.Ended) }

// verifying shows how many credentials of how many were opened to verify.
func (p *progress) verifying(done, of int64) {
	now := time.Now()
	line := progressLine{Event: "verify", Time: now.UTC(), Total: max(done, of), Done: done}
	if p.event == line.Event {
		line.judge(now.Sub(p.began), true)
	}
	p.show(line, done >= of)
}

func (p *progress) show(line progressLine, last bool) {
	if p.event != line.Event {
		p.end()
		p.event, p.began, p.told = line.Event, time.Now(), time.Time{}
	}
	switch {
	case p.c.onTerminal():
		p.draw(line)
	case last || time.Since(p.told) >= time.Second:
		p.told = time.Now()
		_ = json.NewEncoder(plain.JSON(p.c.terminal)).Encode(line)
	}
}

func (p *progress) draw(line progressLine) {
	if p.bar == nil {
		words := map[string]string{"reseal": "sealing anew", "verify": "verifying"}
		p.bar = progressbar.NewOptions64(max(line.Total, 1), progressbar.OptionSetWriter(p.c.terminal),
			progressbar.OptionSetDescription(words[line.Event]), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
			progressbar.OptionSetItsString("credentials"), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish())
	}
	p.bar.ChangeMax64(max(line.Total, 1))
	_ = p.bar.Set64(line.Done + line.Skipped + line.Failed)
}

// end removes the bar.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
}

// tellNeeds says what copies of the database from before need, before anything that
// opens records is removed.
func (c *cli) tellNeeds(needs []rotation.BackupNeed) {
	if c.onTerminal() {
		rotation.PrintNeeds(c.stderr, needs)
		return
	}
	if len(needs) > 0 {
		_ = json.NewEncoder(plain.JSON(c.terminal)).Encode(map[string]any{"event": "backups", "time": time.Now().UTC(), "needs": needs})
	}
}
