package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/plain"
)

// Plan is what a rotation would do now. Making it writes nothing.
type Plan struct {
	KEKID  core.KEKID `json:"kek_id"`
	Reseal bool       `json:"reseal"`
	Now    Snapshot   `json:"now"`
	// Lacking are the wraps that would be added.
	Lacking []Wrap `json:"lacking"`
	// Prune are the wraps that would be removed of data keys that stay.
	Prune []Wrap `json:"prune"`
	// Destroy are the data keys that would be destroyed with all of their wraps, once
	// nothing is sealed under them.
	Destroy []string `json:"destroy"`
	// Compromised are the keys that would be named compromised, for good.
	Compromised []string `json:"compromised,omitempty"`
	// Stale is how many records would be sealed anew.
	Stale int64 `json:"stale_records"`
	// KMSCalls is how many crypto calls to the current provider are expected of
	// this command.
	KMSCalls int `json:"kms_calls"`
	// Expectation is of sealing the stale records anew.
	Expectation
	// Endpoints are the token endpoints of legacy rows. Nothing authenticates
	// them yet; re-sealing binds each record to the one its row has now.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	// Blockers are the reasons for which the rotation would refuse to begin, or with
	// Force go on all the same.
	Blockers []string     `json:"blockers"`
	Force    bool         `json:"force"`
	Backups  []BackupNeed `json:"backups,omitempty"`
}

// Expectation is how long a re-seal is expected to take.
type Expectation struct {
	// Seconds are at the rate of this store's last re-seal of many rows, if that had
	// no limit, and else by a sample of credentials that were read and opened. They
	// are no less than a limit on the rate makes of them.
	Seconds float64 `json:"expected_seconds"`
	// Sampled is how many credentials were read and opened.
	Sampled int `json:"sampled"`
	// LastRate is the credentials a second of that last re-seal, or zero.
	LastRate float64 `json:"last_rate"`
}

// Words says it for people.
func (e Expectation) Words() string {
	took := time.Duration(e.Seconds * float64(time.Second)).Round(100 * time.Millisecond)
	if e.LastRate > 0 {
		return fmt.Sprintf("about %s (as the last re-seal here, which made %.0f credentials a second)", took, e.LastRate)
	}
	return fmt.Sprintf("about %s (measured on %d that were read and opened)", took, e.Sampled)
}

// Endpoint is a token endpoint that legacy rows name, and how many do.
type Endpoint struct {
	TokenEndpoint core.Text `json:"token_endpoint"`
	Credentials   int64     `json:"credentials"`
}

const (
	// planSample is how many rows Plan reads and opens to measure.
	planSample = 1000
	// resealCost is how many times as long as reading and opening a record it takes
	// to seal it anew and write it as well (docs/scale.md).
	resealCost = 3
	// manyRows is how many rows a re-seal has that says something about the next.
	manyRows = 10_000
)

// Plan returns what Rotate would do. It writes nothing, and unwraps every data key.
func (r *Rotator) Plan(ctx context.Context, opts RotateOptions) (*Plan, error) {
	opts = opts.complete()
	state, snap, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		KEKID: r.ring.Status().KEKID, Reseal: opts.Reseal, Force: opts.Force, Now: snap,
		Lacking: []Wrap{}, Prune: []Wrap{}, Destroy: []string{}, Blockers: []string{},
	}
	blockers, err := r.blockers(ctx, opts)
	if err != nil {
		return nil, err
	}
	p.Blockers = append(p.Blockers, blockers...)
	if err := r.planKeys(ctx, p, state, opts); err != nil {
		return nil, err
	}
	if opts.Reseal {
		if err := r.planReseal(ctx, p, opts.MaxRate); err != nil {
			return nil, err
		}
	}
	p.KMSCalls = p.calls()
	former, err := r.formerWraps(ctx, &snap)
	known := r.keys(ctx, slices.Concat(state.Compromised, p.Compromised))
	p.Backups = snap.needs(former, &known)
	return p, err
}

// planKeys says what would happen to the data keys.
func (r *Rotator) planKeys(ctx context.Context, p *Plan, state *keyring.State, opts RotateOptions) error {
	lost, err := r.ring.Lost(ctx)
	switch {
	case errors.Is(err, core.ErrKeyDenied) && r.ring.Status().OutageErr == nil: // of another key than the current one
		p.Blockers = append(p.Blockers, err.Error())
	case err != nil:
		return fmt.Errorf("unwrapping the data keys: %w", err)
	}
	for _, id := range lost {
		p.Blockers = append(p.Blockers, fmt.Sprintf("no configured key unwraps data key %s: name the key that it is wrapped under (lockwood key status) as a previous one", id))
	}
	if opts.Compromised {
		keys, found, err := r.compromisable(ctx, state)
		if err != nil {
			return err
		}
		p.Compromised, p.Blockers = keys, append(p.Blockers, found...)
	} else {
		p.Lacking = WrapsOf(r.ring.MissingWraps())
	}
	if opts.Reseal {
		for _, k := range p.Now.DataKeys {
			p.Destroy = append(p.Destroy, k.KeyID)
		}
		return nil
	}
	keep, err := r.stillNeeded(ctx, nil)
	if err == nil {
		p.Prune = WrapsOf(r.ring.Prunable(keep, true))
	}
	return err
}

// calls returns how many crypto calls to the current provider are expected.
func (p *Plan) calls() (n int) {
	pruned := make(map[string]bool)
	for _, w := range p.Prune {
		pruned[w.KeyID] = true
	}
	for _, k := range p.Now.DataKeys {
		ours := slices.ContainsFunc(k.KEKIDs, func(id core.KEKID) bool { return id.Key() == p.KEKID.Key() })
		lacking := slices.Contains(p.Lacking, Wrap{k.KeyID, p.KEKID})
		if ours && k.Primary {
			n++ // to unlock it at the start
		}
		switch {
		case lacking && ours:
			n += 4 // to unwrap it, to wrap it, to confirm the wrap, to verify what was stored
		case lacking:
			n += 3
		case ours && !k.Primary && p.Reseal && k.Records > 0:
			n++ // to open records
		}
	}
	if p.Reseal {
		n += 3 // to make a data key, to confirm its wrap, to verify what was stored
	}
	if p.Reseal || slices.ContainsFunc(p.Lacking, func(w Wrap) bool { return w.KEKID.Key() == p.KEKID.Key() }) {
		n += 2 // to see, before the first wrap of a process, that the KMS refuses forgeries
	}
	return n + len(pruned) // to see each unwrap before
}

// WrapsOf names wraps as a plan and a report do.
func WrapsOf(ids []keyring.WrapID) []Wrap {
	wraps := []Wrap{}
	for _, w := range ids {
		wraps = append(wraps, Wrap{w.DataKey.String(), w.KEKID})
	}
	return wraps
}

// planReseal says what a re-seal would do, and lists the endpoints of legacy rows.
// The target is a data key that does not exist yet, so every record is stale.
func (r *Rotator) planReseal(ctx context.Context, p *Plan, maxRate int64) (err error) {
	p.Stale = p.Now.Records
	if p.Expectation, err = r.Expect(ctx, p.Now.Credentials, maxRate); err != nil {
		return err
	}
	if p.Now.Legacy > 0 {
		p.Endpoints, err = r.LegacyEndpoints(ctx)
	}
	return err
}

// Expect returns how long sealing so many credentials anew is expected to take, at
// maxRate a second at the most; zero is any. It writes nothing.
func (r *Rotator) Expect(ctx context.Context, credentials, maxRate int64) (Expectation, error) {
	if _, err := r.openSome(ctx); err != nil { // the first time loads data keys
		return Expectation{}, err
	}
	begun := time.Now()
	n, err := r.openSome(ctx)
	if err != nil || n == 0 {
		return Expectation{}, err
	}
	e := Expectation{Sampled: n}
	each := resealCost * time.Since(begun).Seconds() / float64(n)
	run, ok, err := r.store.CurrentRun(ctx)
	if err != nil {
		return e, err
	}
	if took := run.UpdatedAt.Sub(run.StartedAt); ok && run.Ended && run.MaxRate == 0 && run.Done >= manyRows && took > 0 {
		e.LastRate = float64(run.Done) / took.Seconds()
		each = 1 / e.LastRate
	}
	if maxRate > 0 {
		each = max(each, 1/float64(maxRate))
	}
	e.Seconds = each * float64(credentials)
	return e, nil
}

// openSome reads and opens some credentials, and returns how many.
func (r *Rotator) openSome(ctx context.Context) (n int, err error) {
	rows, err := r.credentialStore.Scan(ctx, -1<<63, planSample)
	if err != nil {
		return 0, fmt.Errorf("reading a sample: %w", err)
	}
	if err := r.credentials.Expect(ctx, rows); err != nil {
		return 0, fmt.Errorf("opening a sample: %w", err)
	}
	for i := range rows {
		for _, c := range credential.EncryptedColumns() {
			if rows[i].Record(c.Name) == nil {
				continue
			}
			if _, _, err := r.credentials.OpenRecord(ctx, &rows[i], c.Name); err != nil && credential.FailureReason(err) == "" {
				return 0, fmt.Errorf("opening a sample: %w", err)
			}
		}
	}
	return len(rows), nil
}

// LegacyEndpoints returns the token endpoints of the rows that hold a legacy
// record, the most frequent first. It reads the whole table.
func (r *Rotator) LegacyEndpoints(ctx context.Context) ([]Endpoint, error) {
	counts := make(map[string]int64)
	for after := int64(-1 << 63); ; {
		rows, err := r.credentialStore.Scan(ctx, after, planSample)
		if err != nil {
			return nil, fmt.Errorf("reading token endpoints: %w", err)
		}
		if len(rows) == 0 {
			break
		}
		for i := range rows {
			if holdsLegacy(&rows[i]) {
				counts[rows[i].TokenEndpoint]++
			}
		}
		after = rows[len(rows)-1].ID
	}
	var endpoints []Endpoint
	for url, n := range counts {
		endpoints = append(endpoints, Endpoint{core.Text(url), n})
	}
	slices.SortFunc(endpoints, func(a, b Endpoint) int {
		if a.Credentials != b.Credentials {
			return int(b.Credentials - a.Credentials)
		}
		return cmp.Compare(a.TokenEndpoint, b.TokenEndpoint)
	})
	return endpoints, nil
}

func holdsLegacy(row *credential.Row) bool {
	for _, c := range credential.EncryptedColumns() {
		record := row.Record(c.Name)
		if _, sealed := envelope.ParseHeader(record); record != nil && !sealed {
			return true
		}
	}
	return false
}

// Print writes the plan for people.
func (p *Plan) Print(w io.Writer) {
	line := func(format string, args ...any) { plain.Fprintf(w, format+"\n", args...) }
	line("new key           %s", p.KEKID)
	line("found             %s", p.Now.words())
	for _, key := range p.Compromised {
		line("would name        %s compromised, for good", key)
	}
	for _, w := range p.Lacking {
		line("would wrap        data key %s under %s", w.KeyID, w.KEKID)
	}
	if p.Reseal {
		line("would roll        to a new primary data key")
		line("would re-seal     %s of %s, in %s", plain.Count(p.Stale, "record", "records"), plain.Count(p.Now.Credentials, "credential", "credentials"), p.Words())
		line("would verify      every record, by opening it")
		line("would destroy     %s, with all wraps: %s", plain.Count(len(p.Destroy), "data key", "data keys"), orNone(p.Destroy))
	}
	for _, wrap := range p.Prune {
		line("would prune       the wrap of data key %s under %s", wrap.KeyID, wrap.KEKID)
	}
	line("KMS crypto calls  %d", p.KMSCalls)
	for _, b := range p.Backups {
		line("backups           of one from before now, %s", plain.Prose(b.words()))
	}
	if len(p.Endpoints) > 0 {
		line("\nRe-sealing binds the legacy records to the token endpoint that each row has now. Review them:")
		for _, e := range p.Endpoints {
			line("%10d  %s", e.Credentials, e.TokenEndpoint)
		}
	}
	verb := "refuse"
	if p.Force {
		verb = "go on although"
	}
	for _, b := range p.Blockers {
		line("\nwould %s: %s", verb, plain.Prose(b))
	}
	line("\nNothing was written.")
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
