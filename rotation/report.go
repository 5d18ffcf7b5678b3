package rotation

import (
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

// Report is what a rotation found, did and verified. It is kept in the store
// while the rotation goes on, so that whoever runs it again after a crash goes on
// with it.
type Report struct {
	State       string    `json:"state"` // "running", "done", or empty where none began
	StartedAt   time.Time `json:"started_at"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
	Reseal      bool      `json:"reseal"`
	Compromised []string  `json:"compromised,omitempty"` // keys named compromised
	// KEKID is the KEK that everything was moved to.
	KEKID  core.KEKID `json:"kek_id"`
	Before Snapshot   `json:"before"`
	After  Snapshot   `json:"after,omitzero"`

	Rewrapped int       `json:"rewrapped"` // wraps added
	Resealed  *Resealed `json:"resealed,omitempty"`
	// Verified is what opening every record found, after re-sealing.
	Verified  *credential.Report `json:"verified,omitempty"`
	Destroyed []string           `json:"destroyed,omitempty"` // key IDs
	Pruned    []Wrap             `json:"pruned,omitempty"`
	// Former are wraps that were removed before this rotation, of data keys that were
	// still enabled when it began: older copies of the database hold them.
	Former []Wrap `json:"former,omitempty"`
	// Recovery are the recovery KEKs, which open everything as well, as configured.
	Recovery []core.KEKID `json:"recovery_kek_ids,omitempty"`
	// Kept are KEKs of previous providers that are recovery KEKs too, and so still open
	// everything.
	Kept []core.KEKID `json:"kept_kek_ids,omitempty"`
	// Backups says what a copy of the database from before this rotation still
	// opens with.
	Backups []BackupNeed `json:"backups,omitempty"`
	// Independent says that no record and no data key of the store depends on, or opens
	// with, any other key than KEKID and the recovery KEKs, none of which is an old key;
	// Remains says why not.
	Independent bool     `json:"independent"`
	Remains     []string `json:"remains,omitempty"`
	Notes       []string `json:"notes,omitempty"`
}

// Resealed is the outcome of a re-seal.
type Resealed struct {
	Rows    int64 `json:"rows"`    // sealed anew
	Skipped int64 `json:"skipped"` // changed or deleted by others meanwhile
	// FailedRows is how many rows hold a record that does not open, and Failed names
	// such records, the first thousand.
	FailedRows int64                `json:"failed_rows"`
	Failed     []credential.Failure `json:"failed,omitempty"`
	Seconds    float64              `json:"seconds"`
}

// mostFailures is how many records that do not open a report names. Whoever writes to the
// database can make any number of them, and the report is kept there.
const mostFailures = 1000

// failures are the rows with a record that does not open, the first of them by name.
type failures struct {
	rows  int64
	named []credential.Failure
}

// add adds more of them, which come after those that are there.
func (f *failures) add(more failures) {
	f.rows += more.rows
	f.named = append(f.named, more.named[:min(len(more.named), mostFailures-len(f.named))]...)
}

// Snapshot is the data keys of a store at one moment.
type Snapshot struct {
	Credentials int64     `json:"credentials"`
	Records     int64     `json:"records"`
	Legacy      int64     `json:"legacy_records"`
	Disposable  int64     `json:"access_token_records,omitzero"` // which the others do not count
	DataKeys    []DataKey `json:"data_keys"`
}

// DataKey is one enabled data key in a Snapshot.
type DataKey struct {
	KeyID   string       `json:"key_id"`
	Version int64        `json:"version"`
	Primary bool         `json:"primary"`
	Records int64        `json:"records"`
	KEKIDs  []core.KEKID `json:"kek_ids"`
}

// Wrap names a wrap of a data key.
type Wrap struct {
	KeyID string     `json:"key_id"`
	KEKID core.KEKID `json:"kek_id"`
}

func snapshot(state *keyring.State, counts *credential.Counts) Snapshot {
	s := Snapshot{Credentials: counts.Credentials, Records: counts.Records, Legacy: counts.Legacy, Disposable: counts.Disposable, DataKeys: []DataKey{}}
	for _, k := range state.DataKeys {
		if k.State != keyring.Enabled {
			continue
		}
		d := DataKey{KeyID: k.ID.String(), Version: k.Version, Primary: k.Primary, Records: counts.ByKey[k.ID]}
		for _, w := range k.Wraps {
			d.KEKIDs = append(d.KEKIDs, w.KEKID)
		}
		s.DataKeys = append(s.DataKeys, d)
	}
	return s
}

// counts returns what the snapshot counted.
func (s *Snapshot) counts() *credential.Counts {
	c := &credential.Counts{Credentials: s.Credentials, Records: s.Records, Legacy: s.Legacy, Disposable: s.Disposable, ByKey: make(map[envelope.KeyID]int64)}
	for _, k := range s.DataKeys {
		if id, err := envelope.ParseKeyID(k.KeyID); err == nil {
			c.ByKey[id] = k.Records
		}
	}
	return c
}

func (s *Snapshot) primary() string {
	for _, k := range s.DataKeys {
		if k.Primary {
			return k.KeyID
		}
	}
	return ""
}

// lacking returns the wraps of an earlier snapshot that this one does not have.
func (s *Snapshot) lacking(earlier *Snapshot) (wraps []Wrap) {
	there := make(map[Wrap]bool)
	for _, w := range s.wraps() {
		there[w] = true
	}
	for _, w := range earlier.wraps() {
		if !there[w] {
			wraps = append(wraps, w)
		}
	}
	return wraps
}

func (s *Snapshot) wraps() (wraps []Wrap) {
	for _, k := range s.DataKeys {
		for _, id := range k.KEKIDs {
			wraps = append(wraps, Wrap{k.KeyID, id})
		}
	}
	return wraps
}

// stillEnabled returns those of wraps whose data key the snapshot has.
func (s *Snapshot) stillEnabled(wraps []Wrap) (still []Wrap) {
	for _, w := range wraps {
		if slices.ContainsFunc(s.DataKeys, func(k DataKey) bool { return k.KeyID == w.KeyID }) && !slices.Contains(still, w) {
			still = append(still, w)
		}
	}
	return still
}

// conclude fills in what follows from the rest of the report.
func (r *Report) conclude(k *keys) {
	r.Backups, r.Recovery = r.Before.needs(r.Former, k), k.recovery
	r.Remains = nil
	r.complete()
	if r.Reseal && r.After.primary() == r.Before.primary() {
		r.Remains = append(r.Remains, "the primary data key is the one from before: "+r.After.primary())
	}
	for _, d := range r.After.DataKeys {
		for _, id := range d.KEKIDs {
			if !k.wanted(id) {
				r.Remains = append(r.Remains, fmt.Sprintf("data key %s is still wrapped under the old key %s", d.KeyID, id))
			}
		}
		if !slices.Contains(d.KEKIDs, r.KEKID) {
			r.Remains = append(r.Remains, fmt.Sprintf("data key %s is not wrapped under the new key %s", d.KeyID, r.KEKID))
		}
		if !d.Primary && r.Reseal {
			r.Remains = append(r.Remains, fmt.Sprintf("data key %s is still there, with %s", d.KeyID, plain.Count(d.Records, "record", "records")))
		}
	}
	if r.Reseal && r.After.Legacy > 0 {
		r.Remains = append(r.Remains, plain.Count(r.After.Legacy, "legacy record opens", "legacy records open")+" with the env key alone"+inParentheses(k.envKeys()))
	}
	if n := r.unopened(); n > 0 {
		r.Remains = append(r.Remains, plain.Count(n, "record opens", "records open")+" with no key that is configured")
	}
	r.Independent = r.Reseal && len(r.Remains) == 0
}

// unopened is how many records were found not to open.
func (r *Report) unopened() int64 {
	if r.Verified == nil {
		return 0
	}
	return r.Verified.Records - r.Verified.OK
}

// complete adds what an attempt did that was interrupted before it could say so.
func (r *Report) complete() {
	for _, k := range r.Before.DataKeys {
		i := slices.IndexFunc(r.After.DataKeys, func(a DataKey) bool { return a.KeyID == k.KeyID })
		if i < 0 {
			if !slices.Contains(r.Destroyed, k.KeyID) {
				r.Destroyed = append(r.Destroyed, k.KeyID)
			}
			continue
		}
		for _, id := range k.KEKIDs {
			w := Wrap{k.KeyID, id}
			if !slices.Contains(r.After.DataKeys[i].KEKIDs, id) && !slices.Contains(r.Pruned, w) {
				r.Pruned = append(r.Pruned, w)
			}
		}
	}
}

// oldKEKs returns the KEKs that opened something when the rotation began, other than the
// one that everything was moved to and the recovery KEKs.
func (r *Report) oldKEKs() (ids []core.KEKID) {
	add := func(id core.KEKID) {
		if id != r.KEKID && !slices.Contains(r.Recovery, id) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, k := range r.Before.DataKeys {
		for _, id := range k.KEKIDs {
			add(id)
		}
	}
	for _, w := range r.Former {
		add(w.KEKID)
	}
	return ids
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	line := func(format string, args ...any) { plain.Fprintf(w, format+"\n", args...) }
	line("new key           %s", r.KEKID)
	for _, id := range r.oldKEKs() {
		line("%-16s  %s", r.roleOf(id)+" key", id)
	}
	for _, id := range r.Recovery {
		line("recovery key      %s", id)
	}
	line("found             %s", r.Before.words())
	line("wraps added       %d", r.Rewrapped)
	if before, after := r.Before.primary(), r.After.primary(); before != after && after != "" {
		line("primary data key  %s, was %s", after, before)
	}
	if r.Resealed != nil {
		line("re-sealed         %s in %s (%d changed or deleted meanwhile; %s)", plain.Count(r.Resealed.Rows, "credential", "credentials"),
			(time.Duration(r.Resealed.Seconds * float64(time.Second))).Round(time.Millisecond), r.Resealed.Skipped,
			plain.Count(r.Resealed.FailedRows, "record does not open", "records do not open"))
	}
	if r.Verified != nil {
		line("verified          of %s %d open", plain.Count(r.Verified.Records, "record", "records"), r.Verified.OK)
	}
	for _, id := range r.Destroyed {
		line("destroyed         data key %s", id)
	}
	for _, p := range r.Pruned {
		line("pruned            the wrap of data key %s under %s", p.KeyID, p.KEKID)
	}
	if r.Resealed != nil {
		for _, f := range r.Resealed.Failed[:min(len(r.Resealed.Failed), shownFailures)] {
			line("does not open     credential %d, %s: %s", f.ID, f.Column, f.Reason)
		}
	}
	line("")
	for _, s := range r.conclusions() {
		line("%s", s)
	}
	for _, s := range r.Notes {
		line("%s", s)
	}
}

const (
	// shownFailures is how many records that do not open are printed as text.
	shownFailures = 100
	// maxRemains is how many characters of one of Report.Remains are printed.
	maxRemains = 4000
)

func (r *Report) conclusions() []plain.Prose {
	said := []plain.Prose{plain.Prose(r.verdict())}
	for _, b := range r.Backups {
		said = append(said, plain.Prose(fmt.Sprintf("A backup from before %s: %s.", r.StartedAt.UTC().Format(time.RFC3339), b.words())))
	}
	if len(r.Compromised) > 0 {
		said = append(said, "Whoever had the compromised key may have read every token and client secret sealed under it. Revoke those at their issuers: no rotation here does that.")
	}
	return said
}

// verdict is what the store depends on.
func (r *Report) verdict() string {
	old := len(r.oldKEKs()) > 0 || r.Before.Legacy > 0
	everything := fmt.Sprintf("every data key is wrapped under the new key %s", r.KEKID)
	switch {
	case len(r.Remains) > 0:
		var text strings.Builder
		text.WriteString("This store still depends on an old key:")
		for _, remains := range r.Remains {
			text.WriteString("\n  " + core.Printable(remains, maxRemains))
		}
		return text.String()
	case len(r.Kept) > 0:
		return fmt.Sprintf("This store is not independent of the old key %s: it is a recovery key too, and opens everything, as configured. Otherwise %s, "+
			"and no record is under an older data key.", joined(r.Kept), everything)
	case r.Reseal && old:
		return fmt.Sprintf("This store is independent of the old key%s: %s, and no record is under an older data key.", inParentheses(r.oldKEKs()), everything)
	case r.Reseal:
		return fmt.Sprintf("Every data key is new, and no record is under an older one. The KEK is %s, as before: no other key was found. "+
			"If the key was to change, it has not been configured here yet.", r.KEKID)
	case old:
		return fmt.Sprintf("Now %s. The data keys are the old ones, so this store is not independent of the old key%s: "+
			"whoever has it and an old backup opens what is in the backup, and what is still sealed under the same data keys. lockwood key rotate --reseal ends that.",
			everything, inParentheses(r.oldKEKs()))
	}
	return fmt.Sprintf("There was nothing to move: every data key is wrapped under %s, as before. lockwood key rotate --reseal makes a new data key and seals every record anew.", r.KEKID)
}

// roleOf is the role of a key that opened something when the rotation began.
func (r *Report) roleOf(id core.KEKID) KeyRole {
	if slices.Contains(r.Compromised, id.Key()) {
		return CompromisedKey
	}
	return OldKey
}

// words says what the snapshot holds.
func (s *Snapshot) words() string {
	return fmt.Sprintf("%s of %s, %d of them legacy, under %s", plain.Count(s.Records, "record", "records"),
		plain.Count(s.Credentials, "credential", "credentials"), s.Legacy, plain.Count(len(s.DataKeys), "data key", "data keys"))
}

// inParentheses names the keys behind what stands for them, and is "" for none.
func inParentheses(ids []core.KEKID) string {
	if len(ids) == 0 {
		return ""
	}
	return " (" + joined(ids) + ")"
}

func joined(ids []core.KEKID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = fmt.Sprint(id)
	}
	return strings.Join(texts, ", ")
}
