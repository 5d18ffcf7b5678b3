package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/plugins/isolation"
	agekek "github.com/lockwood-kms/lockwood/providers/age"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
)

// The verdicts of a check.
const (
	verdictOK   = "ok"
	verdictWarn = "warn" // works, with something to know or to mend
	verdictFail = "fail" // does not work, or loses something
	verdictSkip = "skip" // could not be judged, because of an earlier failure
)

// finding is what one check found.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Detail  string `json:"detail"`
	Remedy  string `json:"remedy,omitempty"`
}

func newDoctor(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check everything an operator should before going live", Args: noArgs,
		Example: `  lockwood doctor
  lockwood doctor --json`,
		Long: `Checks the configuration, the keys, the database, every record and the other
instances, and says what to do about each finding. It writes nothing, and can be
run before the first lockwood serve. Exit code 1 says that a check failed; warnings
do not change it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := c.examine(cmd.Context())
			if err := c.print(findings, func(w io.Writer) { printFindings(w, findings) }); err != nil {
				return err
			}
			for _, f := range findings {
				if f.Verdict == verdictFail {
					return errFound
				}
			}
			return nil
		},
	}
}

// examine runs all checks. Those that need what an earlier one found missing are
// skipped, and say so.
func (c *cli) examine(ctx context.Context) []finding {
	v, err := c.open(ctx, os.Environ(), toExamine)
	if err != nil {
		return []finding{
			{"configuration", verdictFail, err.Error(), "correct every line above; .env.example explains the variables"},
			skipped("keys, database, records and instances", "the configuration"),
		}
	}
	defer v.close()
	findings := append(v.checkConfiguration(), checkHost(v.cfg)...)
	findings = append(findings, c.checkEnvFile())
	findings = append(findings, checkFiles(v.cfg)...)
	findings = append(findings, checkSystem(isolation.Examine(), len(pluginSchemes(v.cfg)) > 0)...)
	findings = append(findings, c.checkPlugins(ctx, v.cfg)...)
	findings = append(findings, checkRunning(ctx, v.cfg.AdminAddr)...)
	findings = append(findings, v.checkServers(ctx))
	if err := v.store.Ping(ctx); err != nil {
		return append(findings,
			finding{"database", verdictFail, err.Error(), databaseRemedy(err, "start the database, or correct DATABASE_URL")},
			skipped("keys, records and instances", "the database"))
	}
	examined, usable := v.checkDatabase(ctx)
	if findings = append(findings, examined...); !usable {
		return append(findings, skipped("keys, records and instances", "the database"))
	}
	v.startErr = v.ring.Start(ctx)
	s, err := v.keyStatus(ctx)
	if store.CauseOf(err) == store.NotMigrated {
		s = &keyStatus{KEKID: v.ring.Status().KEKID}
		return append(findings, v.checkSchema(s), v.checkKey(s), v.checkRecovery(s))
	}
	if err != nil {
		return append(findings,
			finding{"database", verdictFail, err.Error(), databaseRemedy(err, "grant the role the rights that docs/operations.md lists under The role in PostgreSQL, or correct DATABASE_SCHEMA")},
			skipped("keys, records and instances", "the database"))
	}
	findings = append(findings, v.checkSchema(s), v.checkKey(s))
	findings = append(findings, v.checkRecovery(s))
	findings = append(findings, v.checkRotation(ctx, s)...)
	findings = append(findings, c.checkRecords(ctx, v)...)
	for _, w := range v.providerWarnings(ctx) {
		findings = append(findings, finding{"key provider", verdictWarn, w, "see its page in docs/providers"})
	}
	findings = append(findings, checkLegacy(s), checkInstances(s))
	return append(findings, checkAgainstConfiguration(v.cfg, s)...)
}

// checkDatabase examines the database, and reports whether what it shows can be
// relied on.
func (v *vault) checkDatabase(ctx context.Context) (findings []finding, usable bool) {
	list, err := v.examineDatabase(ctx)
	if err != nil {
		return []finding{{"database", verdictFail, err.Error(), databaseRemedy(err, "grant the role the rights that docs/operations.md lists under The role in PostgreSQL, or correct DATABASE_SCHEMA")}}, false
	}
	usable = true
	for _, p := range list {
		findings = append(findings, p.judge())
		usable = usable && !slices.Contains([]store.Condition{store.RowsHidden, store.NotATable, store.Rewritten}, p.condition)
	}
	if len(list) == 0 {
		findings = append(findings, finding{"database", verdictOK, "answers, shows every row, and takes writes", ""})
	}
	return findings, usable
}

func skipped(what, because string) finding {
	return finding{what, verdictSkip, "not checked, because " + because + " is not in order", ""}
}

func (v *vault) checkConfiguration() []finding {
	if len(v.warnings) == 0 {
		return []finding{{"configuration", verdictOK, "complete, and the keys are strong", ""}}
	}
	var findings []finding
	for _, w := range v.warnings {
		findings = append(findings, finding{"configuration", verdictWarn, w, "see .env.example"})
	}
	return findings
}

// checkHost looks at what the service exposes.
func checkHost(cfg *config.Config) []finding {
	var findings []finding
	if os.Geteuid() == 0 {
		findings = append(findings, finding{"user", verdictWarn, "this runs as root", "run the service as a user of its own, as deploy/lockwood.service does"})
	}
	host, _, err := net.SplitHostPort(cfg.AdminAddr)
	if cfg.AdminAddr != "" && (err != nil || !loopback(host)) {
		findings = append(findings, finding{"admin listener", verdictWarn, "ADMIN_ADDR can be reached from other hosts, and asks for no token", "bind it to loopback, or let only the monitoring reach it"})
	}
	if cfg.Database.Driver == config.SQLite && !cfg.Database.Memory {
		if info, err := os.Stat(cfg.Database.Path); err == nil && grants(info, 0o077) {
			findings = append(findings, finding{"database file", verdictWarn, "other users can read " + cfg.Database.Path, "run: chmod 600 " + cfg.Database.Path})
		}
	}
	return findings
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *cli) checkEnvFile() finding {
	info, err := os.Stat(c.envFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return finding{"env file", verdictOK, "there is no " + c.envFile, ""}
	case err != nil:
		return finding{"env file", verdictFail, err.Error(), "make it readable for the service's user"}
	case grants(info, 0o077):
		return finding{"env file", verdictFail, "other users can read " + c.envFile + ", which may hold the key", "run: chmod 600 " + c.envFile}
	}
	return finding{"env file", verdictOK, "only its owner can read " + c.envFile, ""}
}

func (v *vault) checkSchema(s *keyStatus) finding {
	switch {
	case v.unmade:
		if _, err := os.Stat(filepath.Dir(v.cfg.Database.Path)); err != nil {
			return finding{"schema", verdictFail, fmt.Sprintf("the database file cannot be made: %v", err), "make the directory, for the service's user, or correct DATABASE_URL"}
		}
		return finding{"schema", verdictWarn, fmt.Sprintf("there is no database file %s yet", core.Text(v.cfg.Database.Path)), "lockwood serve makes it; if there should be one, correct DATABASE_URL"}
	case s.StoreID == "":
		return finding{"schema", verdictWarn, "the database has none of Lockwood's tables yet", "lockwood serve makes them; upstream's table stays as it is"}
	}
	if want := v.cfg.StoreID; want != "" && want != string(s.StoreID) {
		return finding{"schema", verdictFail, fmt.Sprintf("store %s, and FOREST_EXECUTOR_STORE_ID expects %s", s.StoreID, core.Text(want)), otherStoreRemedy}
	}
	return finding{"schema", verdictOK, fmt.Sprintf("store %s", s.StoreID), ""}
}

func (v *vault) checkKey(s *keyStatus) finding {
	switch {
	case v.startErr == nil && s.StoreID == "":
		return finding{"key", verdictOK, fmt.Sprintf("configured is %s", s.KEKID), ""}
	case v.startErr == nil:
		return finding{"key", verdictOK, fmt.Sprintf("unwraps the primary data key; configured is %s", s.KEKID), ""}
	}
	return finding{"key", verdictFail, v.startErr.Error(), keyRemedy(v.startErr, v.cfg.KeyProvider)}
}

// otherStoreRemedy is what to do where the database holds another store than is expected.
const otherStoreRemedy = "correct DATABASE_URL or, if this is the store that is meant, FOREST_EXECUTOR_STORE_ID"

// keyRemedy says what to do about err, which keeps the key of the key URI from
// being used.
func keyRemedy(err error, uri string) string {
	check := "see what it answers with: lockwood plugin check " + quoted(uri)
	if uri == envkey.URI {
		check = "see what is configured with: lockwood key status" // no plugin holds it
	}
	switch {
	case errors.Is(err, keyring.ErrLegacyClosed):
		return "unset FOREST_EXECUTOR_WRITE_FORMAT or, to go back to upstream, run: lockwood key legacy open"
	case errors.Is(err, keyring.ErrOtherStore):
		return otherStoreRemedy
	case errors.Is(err, core.ErrKeyMissing):
		return "set FOREST_EXECUTOR_ENCRYPTION_KEY to the output of lockwood key generate or, on a database that is in use, to the key it was written with"
	case errors.Is(err, core.ErrKeyDenied):
		return "grant the permission that it names, or enable the key in its KMS; " + check + ". If the key is gone for good, configure a new one and run: lockwood recover"
	case errors.Is(err, core.ErrUnavailable):
		return "mend the network or the service, and do not restart instances that run: they go on within the outage budget; " + check
	case errors.Is(err, core.ErrKeyMismatch):
		return "configure the key that this store was written with, as the current or a previous one. If that key is lost, run: lockwood recover"
	}
	return "see what the data keys are wrapped under with: lockwood key status"
}

// quoted is uri as a word of a shell.
func quoted(uri string) string {
	if strings.ContainsAny(uri, "&?;$ '\"*") {
		return "'" + strings.ReplaceAll(uri, "'", `'\''`) + "'"
	}
	return uri
}

// checkRecords opens every record.
func (c *cli) checkRecords(ctx context.Context, v *vault) []finding {
	if errors.Is(v.startErr, core.ErrKeyMissing) {
		return []finding{skipped("records", "the key")}
	}
	report, lost, err := c.verify(ctx, v)
	if err != nil {
		return []finding{{"records", verdictFail, err.Error(), "mend what it names, and run doctor again"}}
	}
	if n := len(report.Failed); n > 0 {
		detail := fmt.Sprintf("of %s %d do not open", plain.Count(report.Records, "record", "records"), n)
		if len(lost) > 0 {
			return []finding{{"records", verdictFail, detail + ": " + strings.Join(lost, ", "), lostRemedy}}
		}
		if report.OK == 0 {
			detail += ": the configured key is not the one they were written with"
		}
		return []finding{{"records", verdictFail, detail, "see them with: lockwood credentials verify"}}
	}
	findings := append([]finding{recordsInOrder(report)}, v.checkLegacyKeys(report)...)
	state, err := v.store.LoadRing(ctx)
	if err != nil {
		return append(findings, finding{"previous keys", verdictFail, err.Error(), "mend what it names, and run doctor again"})
	}
	return append(findings, v.checkPrevious(ctx, &state, report)...)
}

// checkLegacyKeys looks whether upstream, which has one env key, opens what is written for
// it.
func (v *vault) checkLegacyKeys(r *credential.Report) (findings []finding) {
	for _, k := range r.LegacyKeys {
		if v.cfg.WriteLegacy && !k.Current {
			findings = append(findings, finding{
				"legacy keys", verdictFail, fmt.Sprintf("%s with %s: upstream has the current one only, and does not open them", plain.Count(k.Records, "legacy record opens", "legacy records open"), legacyKeyName(k)),
				"run: lockwood credentials reseal --to-legacy",
			})
		}
	}
	return findings
}

func recordsInOrder(r *credential.Report) finding {
	return finding{"records", verdictOK, fmt.Sprintf("every record opens: %s of %s", plain.Count(r.Records, "record", "records"), plain.Count(r.Credentials, "credential", "credentials")), ""}
}

func checkLegacy(s *keyStatus) finding {
	switch {
	case s.Legacy == "closed" && s.LegacyRecords > 0:
		return finding{"legacy", verdictFail, fmt.Sprintf("%s refused because the %s closed legacy", plain.Count(s.LegacyRecords, "legacy record is", "legacy records are"), s.LegacyClosedBy), "if wanted, " + s.legacyRemedy()}
	case s.Legacy == "closed":
		return finding{"legacy", verdictOK, "closed: records that name no key are refused", ""}
	case s.LegacyRecords == 0:
		return finding{"legacy", verdictWarn, "open, though no legacy record is left: whoever can write to the database may paste one into any row", "once upstream is stopped for good, run: lockwood key legacy close"}
	}
	return finding{"legacy", verdictWarn, fmt.Sprintf("%d legacy records are bound to no row", s.LegacyRecords), "review their token endpoints with: lockwood credentials reseal --dry-run; then run it without --dry-run"}
}

func checkInstances(s *keyStatus) finding {
	live := 0
	for _, i := range s.Instances {
		if !i.Live {
			continue
		}
		live++
		if i.lacks(s.KEKID) {
			return finding{"instances", verdictFail, fmt.Sprintf("instance %s on %s cannot use %s", i.ID, i.Hostname, s.KEKID), "give every instance on this database the same key"}
		}
	}
	if drift := s.drift(); len(drift) > 0 {
		return finding{"instances", verdictWarn, strings.Join(drift, "\n"), "configure every instance alike, and run one version"}
	}
	return finding{"instances", verdictOK, fmt.Sprintf("%d live, all with this key", live), ""}
}

// pluginSchemes returns the schemes of the keys that plugins reach.
func pluginSchemes(cfg *config.Config) map[string]bool {
	needed := make(map[string]bool)
	for _, uri := range slices.Concat([]string{cfg.KeyProvider}, cfg.PreviousKeyProviders, cfg.RecoveryKeyProviders) {
		if u, err := core.ParseKeyURI(uri); err == nil && u.Scheme != envkey.Scheme && u.Scheme != agekek.Scheme {
			needed[u.Scheme] = true
		}
	}
	return needed
}

// checkPlugins looks at the plugins, if a key that is configured needs one.
func (c *cli) checkPlugins(ctx context.Context, cfg *config.Config) []finding {
	needed := pluginSchemes(cfg)
	if len(needed) == 0 {
		return nil
	}
	entries, err := c.listPlugins(ctx, cfg)
	if err != nil {
		return []finding{{"plugins", verdictFail, err.Error(), "correct FOREST_EXECUTOR_PLUGIN_DIR and FOREST_EXECUTOR_PLUGIN_LOCK"}}
	}
	var findings []finding
	for _, e := range entries {
		switch {
		case needed[e.Scheme] && e.Problem != "":
			findings = append(findings, finding{"plugin " + e.Scheme, verdictFail, e.Problem, "see: lockwood plugin list"})
		case needed[e.Scheme]:
			findings = append(findings, finding{"plugin " + e.Scheme, verdictOK, fmt.Sprintf("version %s, pinned and unchanged since", orNone(e.Version)), ""})
		case !e.Trusted:
			findings = append(findings, finding{"plugin " + e.Scheme, verdictWarn, "is not used, and could not run: " + e.Problem, "remove it, or pin it"})
		}
	}
	return findings
}

// checkRecovery says what is left of the credentials when the KEK is lost.
func (v *vault) checkRecovery(s *keyStatus) finding {
	unprotected := v.ring.Status().Unprotected
	switch {
	case len(v.providers.Recovery) == 0 && v.cfg.KeyProvider == envkey.URI:
		return finding{"recovery", verdictOK, "none is configured: who keeps a copy of the env key can open everything", ""}
	case len(v.providers.Recovery) == 0:
		return finding{"recovery", verdictWarn, "none is configured: with the key in the KMS every credential is lost", "set FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS; docs/operations.md says how"}
	case s.StoreID != "" && len(unprotected) > 0:
		return finding{"recovery", verdictWarn, plain.Count(len(unprotected), "data key lacks", "data keys lack") + " a wrap under a recovery KEK", "run: lockwood key rewrap"}
	case len(s.Recovery) < len(v.providers.Recovery):
		return finding{"recovery", verdictWarn, "a recovery KEK that is configured was named compromised, so that nothing is wrapped under it, or does not answer", "configure another"}
	}
	return finding{"recovery", verdictOK, "every data key is wrapped under " + orNone(joinIDs(s.Recovery)), "prove it now and then: lockwood recover --drill"}
}

func printFindings(w io.Writer, findings []finding) {
	for _, f := range findings {
		plain.Fprintf(w, "%-4s  %s: %s\n", f.Verdict, f.Check, plain.Indent(f.Detail, 6))
		if f.Remedy != "" {
			plain.Fprintf(w, "      → %s\n", plain.Indent(f.Remedy, 8))
		}
	}
}
