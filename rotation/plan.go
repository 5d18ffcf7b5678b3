package rotation

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

// Plan is what a rotation would do now. Making it writes nothing.
type Plan struct {
	KEKID  core.KEKID `json:"kek_id"`
	Reseal bool       `json:"reseal"`
	Now    Snapshot   `json:"now"`
	// Lacking are the data keys that would be wrapped.
	Lacking []string `json:"lacking"`
	Prune   []Wrap   `json:"prune"`
	// Destroy are the data keys that would be destroyed, once nothing is sealed
	// under them.
	Destroy []string `json:"destroy"`
	// Stale is how many records would be sealed anew.
	Stale int64 `json:"stale_records"`
	// KMSCalls is how many crypto calls to the current provider are expected of
	// this command.
	KMSCalls int `json:"kms_calls"`
	// AtLeast is how long reading and opening the stale records takes, by a sample
	// of Sampled; LastRate is the credentials a second of the last re-seal of this
	// store, zero if there was none.
	AtLeast  Seconds `json:"at_least_seconds"`
	Sampled  int     `json:"sampled"`
	LastRate float64 `json:"last_rate"`
	// Endpoints are the token endpoints of legacy rows. Nothing authenticates
	// them yet; re-sealing binds each record to the one its row has now.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	// Blockers are the reasons for which the rotation would refuse to begin.
	Blockers []string     `json:"blockers"`
	Backups  []BackupNeed `json:"backups,omitempty"`
}

// Seconds is a duration in seconds.
type Seconds float64

// Endpoint is a token endpoint and client that legacy rows name.
type Endpoint struct {
	TokenEndpoint string `json:"token_endpoint"`
	Credentials   int64  `json:"credentials"`
}

// planSample is how many stale rows Plan reads and opens to measure.
const planSample = 1000

// Plan returns what Rotate would do.
func (r *Rotator) Plan(ctx context.Context, opts RotateOptions) (*Plan, error) {
	state, snap, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	status := r.ring.Status()
	p := &Plan{KEKID: status.KEKID, Reseal: opts.Reseal, Now: snap, Lacking: []string{}, Prune: []Wrap{}, Destroy: []string{}, Blockers: []string{}}
	for _, k := range state.DataKeys {
		if k.State != keyring.Enabled {
			continue
		}
		if !hasWrap(&k, status.KEKID) && !opts.Compromised {
			p.Lacking = append(p.Lacking, k.ID.String())
			p.KMSCalls += 2
		}
		if opts.Reseal {
			p.Destroy = append(p.Destroy, k.ID.String())
		}
	}
	if opts.Reseal {
		p.KMSCalls += 2
		if err := r.planReseal(ctx, p); err != nil {
			return nil, err
		}
	}
	keep, err := r.stillNeeded(ctx)
	if err != nil {
		return nil, err
	}
	for _, w := range r.ring.Prunable(keep) {
		p.Prune = append(p.Prune, Wrap{w.DataKey.String(), w.KEKID})
	}
	p.KMSCalls += len(p.Prune)
	p.Backups = snap.needs(r.wanted())
	blockers, err := r.blockers(ctx, opts)
	p.Blockers = append(p.Blockers, blockers...)
	return p, err
}

func hasWrap(k *keyring.DataKeyState, id core.KEKID) bool {
	return slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID == id })
}

// planReseal measures a sample, and lists the endpoints of legacy rows. The target
// is a data key that does not exist yet, so every record is stale.
func (r *Rotator) planReseal(ctx context.Context, p *Plan) error {
	p.Stale = p.Now.Records
	begun := time.Now()
	rows, err := r.credentialStore.Scan(ctx, -1<<63, planSample)
	if err != nil {
		return fmt.Errorf("reading a sample: %w", err)
	}
	for i := range rows {
		for _, c := range credential.EncryptedColumns() {
			if rows[i].Record(c.Name) == nil {
				continue
			}
			if _, _, err := r.credentials.OpenRecord(ctx, &rows[i], c.Name); err != nil && credential.FailureReason(err) == "" {
				return fmt.Errorf("opening a sample: %w", err)
			}
		}
	}
	if p.Sampled = len(rows); p.Sampled > 0 {
		p.AtLeast = Seconds(time.Since(begun).Seconds() / float64(p.Sampled) * float64(p.Now.Credentials))
	}
	if run, ok, err := r.store.CurrentRun(ctx); err == nil && ok && run.Ended {
		if d := run.UpdatedAt.Sub(run.StartedAt).Seconds(); d > 0 {
			p.LastRate = float64(run.Done) / d
		}
	}
	if p.Now.Legacy > 0 {
		p.Endpoints, err = r.LegacyEndpoints(ctx)
	}
	return err
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
		endpoints = append(endpoints, Endpoint{url, n})
	}
	slices.SortFunc(endpoints, func(a, b Endpoint) int {
		if a.Credentials != b.Credentials {
			return int(b.Credentials - a.Credentials)
		}
		return strings.Compare(a.TokenEndpoint, b.TokenEndpoint)
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
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	line("KEK               %s", p.KEKID)
	line("found             %d records of %d credentials, %d of them legacy, under %d data keys",
		p.Now.Records, p.Now.Credentials, p.Now.Legacy, len(p.Now.DataKeys))
	line("would wrap        %d data keys: %s", len(p.Lacking), orNone(p.Lacking))
	if p.Reseal {
		line("would roll        to a new primary data key")
		line("would re-seal     %d records of %d credentials, in %s at the least (measured on %d)%s", p.Stale, p.Now.Credentials,
			time.Duration(float64(p.AtLeast)*float64(time.Second)).Round(10*time.Millisecond), p.Sampled, p.lastRate())
		line("would destroy     %d data keys: %s", len(p.Destroy), orNone(p.Destroy))
	}
	for _, wrap := range p.Prune {
		line("would prune       the wrap of data key %s under %s", wrap.KeyID, wrap.KEKID)
	}
	line("KMS crypto calls  %d", p.KMSCalls)
	for _, b := range p.Backups {
		line("backups           one made now opens %d records with %s", b.Records, kekWords(b.KEKID))
	}
	if len(p.Endpoints) > 0 {
		line("\nRe-sealing binds the legacy records to the token endpoint that each row has now. Review them:")
		for _, e := range p.Endpoints {
			line("%10d  %s", e.Credentials, e.TokenEndpoint)
		}
	}
	for _, b := range p.Blockers {
		line("\nwould refuse: %s", b)
	}
	line("\nNothing was written.")
}

func (p *Plan) lastRate() string {
	if p.LastRate == 0 {
		return ""
	}
	return fmt.Sprintf("; the last re-seal here made %.0f credentials a second", p.LastRate)
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
