package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/rotation"
)

// keyStatus is what "key status" tells, and the shape of its JSON.
type keyStatus struct {
	Provider      string     `json:"provider"`
	KEKID         core.KEKID `json:"kek_id"`
	State         string     `json:"state"`
	StoreID       core.Text  `json:"store_id"`
	Credentials   int64      `json:"credentials"`
	Records       int64      `json:"records"`
	LegacyRecords int64      `json:"legacy_records"`
	Legacy        string     `json:"legacy"` // "open" or "closed"
	// LegacyClosedBy is "database", which no instance gets around, "configuration",
	// which is this one's, or "".
	LegacyClosedBy string           `json:"legacy_closed_by"`
	Recovery       []core.KEKID     `json:"recovery_kek_ids"`
	Compromised    []string         `json:"compromised"`
	Reseal         *resealStatus    `json:"reseal"` // under way or last; null if there was none
	DataKeys       []dataKeyStatus  `json:"data_keys"`
	Instances      []instanceStatus `json:"instances"`
	Problems       []string         `json:"problems"`
}

// resealStatus is the re-seal that is under way, or the last.
type resealStatus struct {
	Running   bool      `json:"running"`
	StartedAt time.Time `json:"started_at"`
	MaxRate   int64     `json:"max_rate"`
	Planned   bool      `json:"planned"`
	// Sealed says that all that was found is sealed anew, and that it is to be finished.
	Sealed bool `json:"sealed"`
	// UpdatedAt is when it went on last; the rest is as of then.
	UpdatedAt time.Time `json:"updated_at"`
	// Command is what goes on with it, and finishes it.
	Command string `json:"command"`
	progressLine
}

type dataKeyStatus struct {
	KeyID         string       `json:"key_id"`
	Version       int64        `json:"version"`
	State         string       `json:"state"` // "enabled" or "destroyed"
	Primary       bool         `json:"primary"`
	CreatedAt     time.Time    `json:"created_at"`
	DestroyedAt   *time.Time   `json:"destroyed_at"`
	SealsReserved int64        `json:"seals_reserved"`
	SealsLimit    int64        `json:"seals_limit"`
	Records       int64        `json:"records"`
	Wraps         []wrapStatus `json:"wraps"`
}

type wrapStatus struct {
	Provider string     `json:"provider"` // a scheme, or "unknown"
	KEKID    core.KEKID `json:"kek_id"`
}

type instanceStatus struct {
	ID           core.Text    `json:"id"`
	Hostname     core.Text    `json:"hostname"`
	KEKIDs       []core.KEKID `json:"kek_ids"`
	State        core.Text    `json:"state"`
	ConfigHash   core.Text    `json:"config_hash"`
	Version      core.Text    `json:"version"`
	WritesLegacy bool         `json:"writes_legacy"`
	StartedAt    time.Time    `json:"started_at"`
	LastSeen     time.Time    `json:"last_seen"`
	Live         bool         `json:"live"`
}

func newKeyStatus(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the key provider, the data keys and who uses them", Args: noArgs,
		Example: `  lockwood key status
  lockwood key status --json`,
		Long: `Shows the provider and its KEK ID, every data key with its state, age, seals,
records and wraps, the legacy records, the instances that run on this store, and
what is not as it should be. It writes nothing, and works on a dump without
Lockwood's tables. Problems are told, and do not change the exit code: doctor is
the command that judges.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := c.inspect(cmd.Context())
			if err != nil {
				return err
			}
			defer v.close()
			s, err := v.keyStatus(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(s, func(w io.Writer) { s.print(w, time.Now()) })
		},
	}
}

// keyStatus gathers the facts from the store and the ring.
func (v *vault) keyStatus(ctx context.Context) (*keyStatus, error) {
	state, err := v.store.LoadRing(ctx)
	if err != nil {
		return nil, err
	}
	counts, err := v.store.Counts(ctx)
	if err != nil {
		return nil, err
	}
	instances, err := v.store.Instances(ctx)
	if err != nil {
		return nil, err
	}
	ring := v.ring.Status()
	s := &keyStatus{
		Provider: v.cfg.KeyProvider, KEKID: ring.KEKID, State: ring.State, StoreID: core.Text(state.StoreID),
		Credentials: counts.Credentials, Records: counts.Records, LegacyRecords: counts.Legacy, Legacy: "open",
		Recovery: nonNil(ring.RecoveryKEKIDs), Compromised: nonNil(state.Compromised),
		DataKeys: []dataKeyStatus{}, Instances: []instanceStatus{}, Problems: []string{},
	}
	switch {
	case state.LegacyClosed:
		s.Legacy, s.LegacyClosedBy = "closed", byDatabase
	case v.cfg.LegacyClosed:
		s.Legacy, s.LegacyClosedBy = "closed", byConfiguration
	}
	for _, k := range state.DataKeys {
		s.DataKeys = append(s.DataKeys, dataKeyOf(k, counts.ByKey[k.ID], v.providerOf))
	}
	for _, i := range instances {
		s.Instances = append(s.Instances, instanceStatus(i))
	}
	if s.Reseal, err = v.resealStatus(ctx); err != nil {
		return nil, err
	}
	s.Problems = append(s.Problems, v.problems(s, &state, counts.ByKey)...)
	for _, w := range v.providerWarnings(ctx) {
		s.Problems = append(s.Problems, "the key provider warns: "+w)
	}
	s.Problems = append(s.Problems, s.outages()...)
	s.Problems = append(s.Problems, s.drift()...)
	return s, nil
}

// resealStatus returns the re-seal that is under way, or the last, or nil.
func (v *vault) resealStatus(ctx context.Context) (*resealStatus, error) {
	run, ok, err := v.store.CurrentRun(ctx)
	if err != nil || !ok {
		return nil, err
	}
	last, err := v.lastRotation(ctx)
	if err != nil {
		return nil, err
	}
	command := "lockwood credentials reseal"
	switch {
	case run.Target.IsZero():
		command += " --to-legacy"
	case last != nil && last.State != "done" && last.Reseal:
		command = rotateAgain(last)
	}
	// Without an answer it is taken to be under way: that is what the database says.
	_, stage, _ := v.resealer().Stage(ctx, run.Target)
	return &resealStatus{
		Running: !run.Ended, Sealed: !run.Ended && stage == rotation.Sealed, StartedAt: run.StartedAt, MaxRate: run.MaxRate, Planned: run.Planned, UpdatedAt: run.UpdatedAt,
		Command: command, progressLine: progressOf(run, run.UpdatedAt),
	}, nil
}

// stalledAfter is how long a re-seal that is worked on goes without any progress at
// the most: the slowest writes once a second.
const stalledAfter = time.Minute

// words says how far the re-seal is, and what to do where nobody goes on with it.
func (r *resealStatus) words(now time.Time) string {
	idle := now.Sub(r.UpdatedAt)
	switch {
	case !r.Running:
		return "ended"
	case r.Sealed:
		return "all that was found is sealed anew; finish with " + r.Command
	case idle > stalledAfter:
		return fmt.Sprintf("no progress for %s; run %s again", age(idle), r.Command)
	}
	left := "more is being found"
	switch {
	case r.Planned && r.Left > 0:
		left = time.Duration(r.Left*float64(time.Second)).Round(time.Second).String() + " left"
	case r.Planned:
		left = "how long is not known yet"
	}
	return fmt.Sprintf("under way, %.0f a second, %s", r.Rate, left)
}

func dataKeyOf(k keyring.DataKeyState, records int64, providerOf func(core.KEKID) string) dataKeyStatus {
	d := dataKeyStatus{
		KeyID: k.ID.String(), Version: k.Version, State: string(k.State), Primary: k.Primary, CreatedAt: k.CreatedAt,
		SealsReserved: k.SealsReserved, SealsLimit: envelope.MaxSeals, Records: records, Wraps: []wrapStatus{},
	}
	if k.State == keyring.Destroyed {
		d.DestroyedAt = &k.DestroyedAt
	}
	for _, w := range k.Wraps {
		d.Wraps = append(d.Wraps, wrapStatus{providerOf(w.KEKID), w.KEKID})
	}
	return d
}

// providerOf returns the scheme of the provider whose KEK ID this is: the current
// one's, if it names its key, or that whose form it has.
func (v *vault) providerOf(id core.KEKID) string {
	if current := v.ring.Status().KEKID; current != "" && current.Key() == id.Key() {
		scheme, _, _ := strings.Cut(v.cfg.KeyProvider, "://")
		return scheme
	}
	for _, form := range []struct{ prefix, scheme string }{
		{"envkey:", "envkey"}, {"age:", "age"}, {"arn:", "awskms"}, {"projects/", "gcpkms"}, {"vault:", "vault"},
	} {
		if strings.HasPrefix(string(id), form.prefix) {
			return form.scheme
		}
	}
	return "unknown"
}

// problems says what is not as it should be, each with what to do.
func (v *vault) problems(s *keyStatus, state *keyring.State, byKey map[envelope.KeyID]int64) []string {
	var problems []string
	if v.startErr != nil {
		problems = append(problems, v.startErr.Error())
	}
	if s.StoreID == "" {
		problems = append(problems, "the database has none of Lockwood's tables yet; lockwood serve makes them")
	}
	problems = append(problems, lostKeys(state, byKey)...)
	if s.Legacy == "closed" && s.LegacyRecords > 0 {
		problems = append(problems, fmt.Sprintf("%s refused because the %s closed legacy; if wanted, %s", plain.Count(s.LegacyRecords, "legacy record is", "legacy records are"), s.LegacyClosedBy, s.legacyRemedy()))
	}
	for _, i := range s.Instances {
		if i.lacks(s.KEKID) {
			problems = append(problems, fmt.Sprintf("instance %s on %s cannot use %s; give it the same key", i.ID, i.Hostname, s.KEKID))
		}
	}
	for _, k := range state.DataKeys {
		if k.State == keyring.Enabled && state.Exposed(&k) {
			problems = append(problems, fmt.Sprintf("data key %s is wrapped under a KEK that was named compromised; run lockwood key rotate --compromised --wait", k.ID))
		}
	}
	for _, id := range v.ring.Status().Unprotected {
		problems = append(problems, fmt.Sprintf("data key %s lacks a wrap under a recovery KEK that is configured; run lockwood key rewrap", id))
	}
	return append(problems, v.warnings...)
}

// maxWarning is how many characters of a provider's warning are shown.
const maxWarning = 4000

// providerWarnings are those of the current key provider. It is asked again: some of them
// it has only once the ring has unwrapped.
func (v *vault) providerWarnings(ctx context.Context) []string {
	warnings := v.ring.Status().Warnings
	if s, err := v.providers.Current.Status(ctx); err == nil {
		warnings = s.Warnings
	}
	shown := make([]string, len(warnings))
	for i, w := range warnings {
		shown[i] = core.Printable(w, maxWarning)
	}
	return shown
}

// The values of keyStatus.LegacyClosedBy.
const (
	byDatabase      = "database"
	byConfiguration = "configuration"
)

// legacyRemedy says how legacy records that are refused are admitted.
func (s *keyStatus) legacyRemedy() string {
	if s.LegacyClosedBy == byDatabase {
		return "run lockwood key legacy open, lockwood credentials reseal and lockwood key legacy close, and find out how they got past the database's constraint"
	}
	return "unset FOREST_EXECUTOR_LEGACY, run lockwood credentials reseal, and set it again"
}

func hasEnabled(state *keyring.State, id envelope.KeyID) bool {
	for _, k := range state.DataKeys {
		if k.ID == id && k.State == keyring.Enabled {
			return true
		}
	}
	return false
}

// lacks reports whether the instance is live and cannot use the key of id, if
// that is known.
func (i *instanceStatus) lacks(id core.KEKID) bool {
	return i.Live && id != "" && !slices.ContainsFunc(i.KEKIDs, func(has core.KEKID) bool { return has.Key() == id.Key() })
}

func (s *keyStatus) print(w io.Writer, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { plain.Fprintf(t, format+"\n", args...) }
	row("provider\t%s", s.Provider)
	row("KEK ID\t%s", orNone(s.KEKID))
	row("state\t%s", s.State)
	row("store\t%s", orNone(s.StoreID))
	row("credentials\t%d", s.Credentials)
	row("records\t%d, of which legacy %d (legacy is %s)", s.Records, s.LegacyRecords, s.Legacy)
	if len(s.Recovery) > 0 {
		row("recovery\t%s", plain.Prose(joinIDs(s.Recovery)))
	}
	if r := s.Reseal; r != nil {
		row("re-seal\t%d of %s, %d skipped, %s; %s", r.Done, plain.Count(r.Total, "credential", "credentials"), r.Skipped, plain.Count(r.Failed, "does not open", "do not open"), r.words(now))
	}
	_ = t.Flush()
	s.printDataKeys(row, now)
	s.printInstances(row, now)
	_ = t.Flush()
	for _, p := range s.Problems {
		plain.Fprintf(w, "\nproblem: %s\n", plain.Indent(p, 2))
	}
}

func (s *keyStatus) printDataKeys(row func(string, ...any), now time.Time) {
	if len(s.DataKeys) == 0 {
		return
	}
	row("\nDATA KEY\tVERSION\tSTATE\tAGE\tSEALS RESERVED\tRECORDS\tWRAPPED UNDER")
	for _, k := range s.DataKeys {
		state := k.State
		if k.Primary {
			state = "primary"
		}
		var under []string
		for _, w := range k.Wraps {
			under = append(under, fmt.Sprintf("%s %s", w.Provider, w.KEKID))
		}
		row("%s\t%d\t%s\t%s\t%d of %d\t%d\t%s", k.KeyID, k.Version, state, age(now.Sub(k.CreatedAt)),
			k.SealsReserved, k.SealsLimit, k.Records, plain.Prose(orNone(strings.Join(under, ", "))))
	}
}

func (s *keyStatus) printInstances(row func(string, ...any), now time.Time) {
	if len(s.Instances) == 0 {
		return
	}
	row("\nINSTANCE\tHOST\tSTATE\tVERSION\tLAST SEEN\tKEK IDS")
	for _, i := range s.Instances {
		seen := age(now.Sub(i.LastSeen)) + " ago"
		if !i.Live {
			seen += " (gone)"
		}
		row("%s\t%s\t%s\t%s\t%s\t%s", i.ID, i.Hostname, i.State, i.Version, seen, plain.Prose(orNone(joinIDs(i.KEKIDs))))
	}
}

// drift says how the live instances differ.
func (s *keyStatus) drift() []string {
	instances := make([]fleet.Instance, len(s.Instances))
	for i, status := range s.Instances {
		instances[i] = fleet.Instance(status)
	}
	return fleet.Drift(instances)
}

func joinIDs(ids []core.KEKID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = fmt.Sprint(id)
	}
	return strings.Join(texts, ", ")
}

func orNone[T ~string](s T) T {
	if s == "" {
		return "none"
	}
	return s
}

// age is d for people: one unit, rounded down.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d s", max(0, d)/time.Second)
}
