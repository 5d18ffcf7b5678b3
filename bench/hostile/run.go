package hostile

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/lockwood-kms/lockwood/bench/load"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/server"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// The bounds.
const (
	mostStranger = 64  // MiB above idle, without a token
	mostCaller   = 127 // MiB above idle, with one: what docs/http.md says of the collector
	mostSlower   = 3   // times the p99 beside idle connections
)

// ramp is how long the hostile clients run before the honest one is measured.
const ramp = 2 * time.Second

// Run measures all forms, without and with a token, and returns the tables. window
// is how long the honest client is measured beside each.
func Run(ctx context.Context, rounds int, window time.Duration, binary, dir string) ([]*measure.Table, error) {
	strangers, err := table(ctx, rounds, window, binary, dir, false)
	if err != nil {
		return nil, err
	}
	callers, err := table(ctx, rounds, window, binary, dir, true)
	return []*measure.Table{strangers, callers}, err
}

func table(ctx context.Context, rounds int, window time.Duration, binary, dir string, known bool) (*measure.Table, error) {
	t := &measure.Table{
		Title:  fmt.Sprintf("%d hostile connections without a token", connections),
		Header: []string{"form", "resident, MiB", "above idle", "bound", "", "p99 of a deposit, of that beside idle connections", "bound", ""},
		Notes: []string{fmt.Sprintf("Medians of %d rounds; resident memory is the most in a round. The hostile clients send at most %d requests a second. "+
			"An honest client deposits on four connections, SQLite; in each round it is measured beside idle connections, too.", rounds, perSecond)},
	}
	most := mostStranger
	if known {
		t.Title, most = fmt.Sprintf("%d hostile connections of one user with a token", connections), mostCaller
	}
	all, err := forms("")
	if err != nil {
		return nil, err
	}
	for number := 1; number < len(all); number++ {
		var resident, above, slower measure.Sample
		for range rounds {
			quiet, err := once(ctx, 0, window, binary, dir, known)
			if err != nil {
				return nil, err
			}
			loud, err := once(ctx, number, window, binary, dir, known)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", all[number].name, err)
			}
			resident = append(resident, loud.resident)
			above = append(above, loud.resident-loud.before)
			slower = append(slower, loud.p99/quiet.p99)
		}
		t.Add(all[number].name, fmt.Sprintf("%.0f", resident.Median()), fmt.Sprintf("%.0f", above.Median()), fmt.Sprintf("≤ %d", most),
			measure.Verdict(above.Median() <= float64(most)), fmt.Sprintf("%.2f (%s)", slower.Median(), slower.Spread(2)),
			fmt.Sprintf("≤ %d", mostSlower), measure.Verdict(slower.Median() <= mostSlower))
	}
	return t, nil
}

// figures are of one form in one round.
type figures struct {
	before, resident float64 // MiB: when idle, and the most beside the form
	p99              float64 // ms
}

// once starts the binary, lets the hostile clients loose, and measures the honest
// one. An error is also that an honest deposit failed, or that the server ended.
func once(ctx context.Context, number int, window time.Duration, binary, dir string, known bool) (f figures, err error) {
	if dir, err = os.MkdirTemp(dir, "hostile"); err != nil {
		return f, err
	}
	secret := envkey.Generate()
	p, err := start(ctx, binary, dir, secret)
	if err != nil {
		return f, err
	}
	defer p.Stop()
	if known {
		if err := fill(p.Addr, secret); err != nil {
			return f, err
		}
	}
	time.Sleep(time.Second)
	if f.before, err = mib(p); err != nil {
		return f, err
	}
	attacker, err := loose(ctx, number, p.Addr, secret, known)
	if err != nil {
		return f, err
	}
	defer attacker()
	f.resident = f.before
	done := make(chan struct{})
	watched := make(chan float64)
	go func() { watched <- watch(p, done) }()
	time.Sleep(ramp)
	took, err := honest(ctx, p.Addr, secret, window)
	close(done)
	f.resident = <-watched
	f.p99 = p99(took)
	return f, err
}

func start(ctx context.Context, binary, dir, secret string) (*server.Process, error) {
	first, err := load.Deposit(secret, 1, "first")
	if err != nil {
		return nil, err
	}
	p, err := server.Start(ctx, dir, []string{
		"DATABASE_URL=sqlite:" + filepath.Join(dir, "lockwood.db"), "ADMIN_ADDR=",
		"FOREST_AUTH_SECRET=" + secret, "FOREST_EXECUTOR_ENCRYPTION_KEY=" + envkey.Generate(),
	}, binary, "serve")
	if err != nil {
		return nil, err
	}
	if err := p.Await(func() bool { return load.Accepted(p.Addr, first) }); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// attackerID is the user whose token the hostile clients have.
const attackerID = 1_000_000

// fill deposits for the hostile user as many credentials as a list may have.
func fill(addr, secret string) error {
	conn, err := load.Dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for i := range 1000 {
		request, err := load.Deposit(secret, attackerID, "server-"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		if status, err := conn.Do(request); err != nil || status != http.StatusOK {
			return fmt.Errorf("filling the list: %d, %w", status, err)
		}
	}
	return nil
}

// loose starts the hostile clients, and returns what ends them.
func loose(ctx context.Context, number int, addr, secret string, known bool) (end func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, Command, strconv.Itoa(number), addr)
	cmd.Stderr = os.Stderr
	if known {
		token, err := load.Token(secret, attackerID)
		if err != nil {
			return nil, err
		}
		cmd.Env = append(os.Environ(), TokenVariable+"="+token)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the hostile clients: %w", err)
	}
	return func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

// watch returns the most MiB that the server had resident until done.
func watch(p *server.Process, done <-chan struct{}) (most float64) {
	for {
		if now, err := mib(p); err == nil {
			most = max(most, now)
		}
		select {
		case <-done:
			return most
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func mib(p *server.Process) (float64, error) {
	resident, err := p.Resident()
	return float64(resident) / (1 << 20), err
}

// honest deposits for a while on four connections, and returns how many
// milliseconds each deposit took.
func honest(ctx context.Context, addr, secret string, window time.Duration) ([]float64, error) {
	const clients = 4
	type result struct {
		took []float64
		err  error
	}
	results := make(chan result)
	end := time.Now().Add(window)
	for client := range clients {
		go func() {
			took, err := deposits(ctx, addr, secret, client+1, end)
			results <- result{took, err}
		}()
	}
	var all []float64
	var failed error
	for range clients {
		r := <-results
		all = append(all, r.took...)
		if r.err != nil {
			failed = r.err
		}
	}
	return all, failed
}

func deposits(ctx context.Context, addr, secret string, user int, end time.Time) (took []float64, err error) {
	request, err := load.Deposit(secret, user, "honest")
	if err != nil {
		return nil, err
	}
	conn, err := load.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for time.Now().Before(end) && ctx.Err() == nil {
		began := time.Now()
		status, err := conn.Do(request)
		if err != nil || status != http.StatusOK {
			return nil, fmt.Errorf("an honest deposit: %d, %w", status, err)
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
	return took, nil
}

func p99(took []float64) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}
