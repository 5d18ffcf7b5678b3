package rotation_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
)

// A key leaked, and whoever has it writes to the database while it is retired. The long
// form has as many hostile records, and as many others, as the short form has a
// fiftieth of:
//
//	LOCKWOOD_TEST_LONG=1 go test ./rotation -run TestHostile -timeout 60m -v
func hostileRecords() int {
	if tmptest.Long() {
		return 100_000
	}
	return 2000
}

// costs counts what a rotation asks the store for.
type costs struct {
	store.Store
	loads, scans, writes, reports atomic.Int64
	largest                       atomic.Int64 // report, in bytes
	meanwhile                     func(rotation.Batch)
}

func (c *costs) LoadRing(ctx context.Context) (keyring.State, error) {
	c.loads.Add(1)
	return c.Store.LoadRing(ctx)
}

func (c *costs) ScanStale(ctx context.Context, target rotation.Target, after, last int64, limit int) ([]credential.Row, error) {
	c.scans.Add(1)
	return c.Store.ScanStale(ctx, target, after, last, limit)
}

func (c *costs) Reseal(ctx context.Context, b rotation.Batch) (int64, error) {
	c.writes.Add(1)
	if c.meanwhile != nil {
		c.meanwhile(b)
	}
	return c.Store.Reseal(ctx, b)
}

func (c *costs) SaveReport(ctx context.Context, report []byte) error {
	c.reports.Add(1)
	c.largest.Store(max(c.largest.Load(), int64(len(report))))
	return c.Store.SaveReport(ctx, report)
}

// startWhole starts an instance as a command does: it knows of the others that are live,
// and writes batches as large as in production.
func startWhole(t *testing.T, s store.Store, current string, previous ...string) *instance {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	keys := envKeys(t, current, previous...)
	i := &instance{store: s, ring: keyring.New(keys.Provider(), s, &keyring.Options{
		Previous: keys.Previous(), Legacy: keys, Logger: log, Live: func(ctx context.Context) ([]keyring.LiveInstance, error) {
			instances, err := s.Instances(ctx)
			var live []keyring.LiveInstance
			for _, i := range instances {
				if i.Live {
					live = append(live, keyring.LiveInstance{Name: i.Name(), KEKIDs: i.KEKIDs})
				}
			}
			return live, err
		},
	})}
	t.Cleanup(i.ring.Close)
	if err := i.ring.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.credentials = credential.NewService(i.ring, s, &credential.Options{Logger: log})
	i.resealer = rotation.NewResealer(s, s.Queue(log), i.credentials, rotation.ResealOptions{
		Primary: func() envelope.KeyID { return i.ring.Status().Primary }, Logger: log,
	})
	i.rotator = rotation.NewRotator(i.ring, s, i.credentials, i.resealer, keys.Previous(), false)
	return i
}

// retired retires the leaked key A, and holds the store to what that means: nothing
// that opens is sealed under a data key which A wrapped. It returns what it took.
func retired(t *testing.T, db *edited, opts rotation.RotateOptions, meanwhile func(rotation.Batch)) (*rotation.Report, *costs, time.Duration) {
	t.Helper()
	before, err := db.store(t).LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &costs{Store: db.store(t), meanwhile: meanwhile}
	i := startWhole(t, c, keyB, keyA)
	opts.Compromised = true
	began, used := time.Now(), processorTime(t)
	report, err := i.rotator.Rotate(t.Context(), opts)
	took := time.Since(began)
	if err != nil {
		t.Fatalf("the rotation ended after %v: %v", took, err)
	}
	used = processorTime(t) - used
	t.Logf("%v, %v of the processor: %d loads, %d scans, %d batches, %d reports of up to %d bytes", took, used, c.loads.Load(), c.scans.Load(), c.writes.Load(), c.reports.Load(), c.largest.Load())
	state, err := c.Store.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := state.Primary()
	if p == nil || p.WrappedUnder(kekID(t, keyA)) || !p.WrappedUnder(kekID(t, keyB)) {
		t.Errorf("the primary data key is %+v", p)
	}
	for _, k := range before.DataKeys {
		if k.Primary && p != nil && k.ID == p.ID {
			t.Error("the primary data key is the one from before")
		}
	}
	if n := c.largest.Load(); n > 1<<20 {
		t.Errorf("a report has %d bytes", n)
	}
	return report, c, took
}

// processorTime is what this process has used so far, its SQLite included.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// opening opens every record, and returns how many do and do not.
func opening(t *testing.T, db *edited) *credential.Report {
	t.Helper()
	report, err := startOn(t, db.store(t), keyB).credentials.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// saysWhatFails fails unless the report says that n records do not open, and claims
// nothing else.
func saysWhatFails(t *testing.T, r *rotation.Report, n int64) {
	t.Helper()
	var text strings.Builder
	r.Print(&text)
	if r.Independent || len(r.Remains) == 0 || r.Verified.Records-r.Verified.OK != n {
		t.Errorf("independent %v; of %d records %d open, want %d that do not", r.Independent, r.Verified.Records, r.Verified.OK, n)
	}
	for _, never := range []string{"every record opens", "is independent", "no record is under an older data key"} {
		if strings.Contains(text.String(), never) {
			t.Errorf("the report says %q:\n%s", never, text.String())
		}
	}
}

// hostile is what an attacker does to a store of n credentials, of which A is the leaked
// key.
type hostile struct {
	// prepare does it, and returns how many records do not open then.
	prepare func(t *testing.T, db *edited, n int) (broken int)
	// meanwhile, if not nil, returns what the attacker does while a batch is sealed anew.
	meanwhile func(t *testing.T, db *edited) func(rotation.Batch)
	// forced says that the operator has to insist.
	forced bool
	// remains are data keys that stay: records that do not open name them.
	remains func(n int) int
}

func hostiles() map[string]hostile {
	deposited := func(mutate mutation) func(*testing.T, *edited, int) int {
		return func(t *testing.T, db *edited, n int) int {
			t.Helper()
			db.deposit(t, startOn(t, db.store(t), keyA), n, n, mutate)
			return 2 * n
		}
	}
	return map[string]hostile{
		"nothing":                     {prepare: func(*testing.T, *edited, int) int { return 0 }},
		"records of no data key":      {prepare: deposited(ofNoDataKey)},
		"records that do not open":    {prepare: deposited(altered), remains: func(int) int { return 1 }},
		"records that change":         {prepare: alternatives, meanwhile: changeOnce},
		"planted data keys":           {prepare: plantKeys, remains: plantedKeys, forced: true},
		"planted wraps and instances": {prepare: plantWraps, forced: true},
		"a partial restore":           {prepare: restorePartly},
	}
}

// Whatever an attacker put into the database, the leaked key is retired: all that opens
// is sealed anew, and what does not is told.
func TestHostile(t *testing.T) {
	for name, attack := range hostiles() {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, db *edited) { underAttack(t, db, attack) })
		})
	}
}

func underAttack(t *testing.T, db *edited, attack hostile) {
	n := hostileRecords()
	first := startOn(t, db.store(t), keyA)
	db.deposit(t, first, 0, n, asDeposited)
	broken := attack.prepare(t, db, n)
	var meanwhile func(rotation.Batch)
	if attack.meanwhile != nil {
		meanwhile = attack.meanwhile(t, db)
	}
	db.exec(t, map[bool]string{true: "VACUUM ANALYZE", false: "ANALYZE"}[db.schema != ""])
	first.ring.Close()
	report, c, took := retired(t, db, rotation.RotateOptions{Force: attack.forced}, meanwhile)
	t.Logf("%d credentials, %d records that do not open: %v", n, broken, took)
	if broken > 0 {
		saysWhatFails(t, report, int64(broken))
	} else if !report.Independent {
		t.Errorf("the report is not one of independence: %v", report.Remains)
	}
	remains := 0
	if attack.remains != nil {
		remains = attack.remains(n)
	}
	if len(report.After.DataKeys) != remains+1 {
		t.Errorf("%d data keys are enabled, want %d", len(report.After.DataKeys), remains+1)
	}
	if loads := c.loads.Load(); loads > 60 {
		t.Errorf("%d loads of the ring", loads)
	}
	if r := opening(t, db); r.Records-r.OK != int64(broken) || r.Stale != 0 {
		t.Errorf("afterwards %d of %d records open, and %d are stale; want %d that do not open", r.OK, r.Records, r.Stale, broken)
	}
}

// alternatives gives the second half of the credentials another record each, to be put
// in the place of theirs.
func alternatives(t *testing.T, db *edited, n int) int {
	t.Helper()
	i := startOn(t, db.store(t), keyA)
	db.deposit(t, i, n, n, asDeposited)
	db.exec(t, "CREATE TABLE @alternatives AS SELECT * FROM @ai_mcp_oauth_credentials WHERE user_id >= $1", n)
	db.exec(t, "DELETE FROM @ai_mcp_oauth_credentials WHERE user_id >= $1", n)
	db.deposit(t, i, n, n, asDeposited)
	db.exec(t, "CREATE INDEX alternatives_user ON "+db.schema+"alternatives (user_id)")
	return 0
}

// changeOnce puts the alternatives in the place of the records that are being sealed
// anew, once for each.
func changeOnce(t *testing.T, db *edited) func(rotation.Batch) {
	t.Helper()
	return func(b rotation.Batch) {
		var first, last int64 = -1, -1
		for _, r := range b.Rows {
			if first < 0 || r.Old.UserID < first {
				first = r.Old.UserID
			}
			last = max(last, r.Old.UserID)
		}
		err := db.try(t, `WITH taken AS (SELECT * FROM @alternatives WHERE user_id BETWEEN $1 AND $2)
			UPDATE @ai_mcp_oauth_credentials AS c SET refresh_token_enc = taken.refresh_token_enc FROM taken WHERE c.user_id = taken.user_id`, first, last)
		if err == nil {
			err = db.try(t, "DELETE FROM @alternatives WHERE user_id BETWEEN $1 AND $2", first, last)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func plantedKeys(n int) int { return n / 50 }

// plantKeys plants data keys under every KEK that there is and others, and records that
// name them.
func plantKeys(t *testing.T, db *edited, n int) int {
	t.Helper()
	under := db.plant(t, plantedKeys(n), kekID(t, keyA), kekID(t, keyB), "planted:kek#1")
	db.deposit(t, startOn(t, db.store(t), keyA), n, n, ofDataKeys(under))
	db.plant(t, plantedKeys(n)) // which no record names
	return 2 * n
}

// plantWraps has the real data key wrapped under KEKs that nobody configured, and makes
// up instances that can use the leaked key alone, now and for ever.
func plantWraps(t *testing.T, db *edited, _ int) int {
	t.Helper()
	now := db.time()
	db.exec(t, "INSERT INTO @lockwood_data_key_wraps (key_id, kek_id, wrapped, created_at) SELECT key_id, 'planted:kek#1', $1, $2 FROM @lockwood_data_keys", []byte("wrap"), now)
	for k := range 50 {
		i := fleet.Instance{ID: core.Text(fmt.Sprintf("planted-%d", k)), Hostname: "nowhere", KEKIDs: []core.KEKID{kekID(t, keyA)}, State: "ready"}
		if err := db.store(t).Beat(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	later := any(time.Now().Add(1000 * time.Hour).UTC())
	if db.schema == "" {
		later = time.Now().Add(1000 * time.Hour).UTC().Format("2006-01-02 15:04:05.000 -07:00")
	}
	db.exec(t, "UPDATE @lockwood_instances SET last_seen = $1", later)
	return 0
}

// restorePartly brings back credentials from before a rotation that destroyed their data
// key, and the row of a data key without its wraps.
func restorePartly(t *testing.T, db *edited, n int) int {
	t.Helper()
	i := startWhole(t, db.store(t), keyA)
	db.deposit(t, i, n, n, asDeposited)
	db.exec(t, "CREATE TABLE @backup AS SELECT * FROM @ai_mcp_oauth_credentials WHERE user_id >= $1", n)
	if report, err := i.rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true}); err != nil || !report.Independent {
		t.Fatalf("%+v, %v", report, err)
	}
	db.exec(t, "DELETE FROM @ai_mcp_oauth_credentials WHERE user_id >= $1", n)
	db.exec(t, "INSERT INTO @ai_mcp_oauth_credentials SELECT * FROM @backup")
	db.plant(t, 1)
	return 2 * n
}
