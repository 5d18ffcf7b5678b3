package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/backup"
	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/internal/wiring"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

func newBackup(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write a backup of the database, and check it",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(errors.New(`name one new file for the backup; see "lockwood backup --help"`))
			}
			return plainName(args[0])
		},
		Example: `  lockwood backup /var/backups/lockwood-2026-01-31.db
  lockwood backup check /var/backups/lockwood-2026-01-31.db
  lockwood backup check`,
		Long: `SQLite: writes the database, as it is at one moment, to a new file that only you can
read. The service may run meanwhile. The file is then read to its end, every record is
counted, and opened if the key is configured. Nothing is ever overwritten, and there is
a whole backup at FILE or none. Where the keys cannot be set up it is kept unexamined,
and the exit code is 1. Access tokens are left out: they are fetched anew.
The data keys of a backup have no seals left, so whoever serves on it makes a new one.

PostgreSQL: writes nothing, prints the pg_dump command that makes the backup, and exits
with code 2.

The keys are in no backup. Keep them, or an identity of a recovery key, apart from it.`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.backup(cmd.Context(), args[0]) },
	}
	cmd.AddCommand(newBackupCheck(c))
	return cmd
}

func newBackupCheck(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "Say what a backup needs, and whether everything in it opens",
		Args: func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return nil
			case 1:
				return plainName(args[0])
			}
			return usageError(errors.New("name one file, or none for the configured database"))
		},
		Example: `  lockwood backup check /var/backups/lockwood-2026-01-31.db
  DATABASE_URL=postgres://lockwood@localhost/restored lockwood backup check`,
		Long: `Examines a backup of SQLite, or without FILE the configured database, into which a dump
was restored: how much it holds, under which KEKs its data keys are wrapped, which of
these a configured key opens (a recovery key too), and whether every record opens. It
writes nothing. Exit code 1 says that something cannot be used.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var at *config.Database
			if len(args) == 1 {
				at = &config.Database{Driver: config.SQLite, Path: args[0]}
			}
			report, err := c.checkBackup(cmd.Context(), at)
			if err != nil {
				return err
			}
			if err := c.print(report, func(w io.Writer) { printBackup(w, report) }); err != nil {
				return err
			}
			if !report.OK() {
				return errFound
			}
			return nil
		},
	}
}

// plainName refuses the name of a file that a terminal does not show as it is: errors of
// the system repeat it.
func plainName(path string) error {
	if core.Printable(path, len(path)) != path {
		return usageError(fmt.Errorf("%s holds what a terminal does not show; name another file", core.Text(path)))
	}
	return nil
}

// written is the outcome of "backup", and the shape of its JSON.
type written struct {
	File string `json:"file"`
	// NotExamined is why the file was not examined; the report is missing then.
	NotExamined string `json:"not_examined,omitempty"`
	*backup.Report
}

func (c *cli) backup(ctx context.Context, path string) error {
	cfg, err := config.Load(os.Environ(), c.variables())
	if err != nil {
		return usageError(fmt.Errorf("the configuration is not in order:\n%w", err))
	}
	switch db := &cfg.Database; {
	case db.Driver == config.Postgres:
		return c.tellDump(db, path)
	case db.Memory:
		return usageError(errors.New("a database in memory cannot be backed up; set DATABASE_URL to a file"))
	}
	var report *backup.Report
	var notExamined error
	err = backup.Write(ctx, path, func(ctx context.Context, partial string) error {
		if err := sqlite.Backup(ctx, cfg.Database.Path, partial); err != nil {
			return err
		}
		report, err = c.checkBackup(ctx, &config.Database{Driver: config.SQLite, Path: partial})
		if err == nil || ctx.Err() != nil || errors.Is(err, core.ErrStoreUnavailable) {
			return err
		}
		notExamined = err // of the keys: the copy is whole all the same
		return nil
	})
	if errors.Is(err, fs.ErrExist) {
		return usageError(fmt.Errorf("%w; nothing is overwritten: name another file", err))
	}
	if err != nil {
		return err
	}
	if notExamined != nil {
		if err := c.print(written{File: path, NotExamined: notExamined.Error()}, func(w io.Writer) { plain.Fprintf(w, "%s written\n", path) }); err != nil {
			return err
		}
		return &exitError{exitFound, fmt.Errorf("the backup was not examined, lockwood backup check does so: %w", notExamined)}
	}
	if err := c.print(written{File: path, Report: report}, func(w io.Writer) {
		plain.Fprintf(w, "%s written\n", path)
		printBackup(w, report)
	}); err != nil {
		return err
	}
	if report.Opened != nil && !report.OK() {
		return errFound
	}
	return nil
}

// tellDump says what to run for a backup of PostgreSQL.
func (c *cli) tellDump(db *config.Database, path string) error {
	words, err := wiring.DumpCommand(db, path)
	if err != nil {
		return usageError(err)
	}
	for i, word := range words {
		words[i] = quoted(word)
	}
	line := "umask 077; " + strings.Join(words, " ")
	if core.Printable(line, len(line)) != line {
		return usageError(errors.New("the command for pg_dump would hold what a terminal does not show: choose another name for the file, and see DATABASE_URL"))
	}
	if err := c.print(map[string]string{"run": line}, func(w io.Writer) { plain.Fprintf(w, "%s\n", plain.Prose(line)) }); err != nil {
		return err
	}
	return usageError(errors.New("nothing was written: PostgreSQL is backed up with pg_dump; run the command above, restore the file into another database, and run lockwood backup check on that"))
}

// checkBackup examines the database at a place, or the configured one if that is nil.
func (c *cli) checkBackup(ctx context.Context, at *config.Database) (*backup.Report, error) {
	looking := *c
	looking.database = at
	v, err := looking.inspect(ctx)
	if err != nil {
		return nil, err
	}
	defer v.close()
	counts, err := v.store.Counts(ctx)
	if err != nil {
		return nil, err
	}
	return c.examineBackup(ctx, v, v, counts.Credentials)
}

// examineBackup examines the store of v with the keys of keys.
func (c *cli) examineBackup(ctx context.Context, v, keys *vault, of int64) (*backup.Report, error) {
	p, done := c.progress(), int64(0)
	defer p.end()
	return backup.Check(ctx, backup.Subject{
		Ring: v.ring, Store: v.store, Credentials: v.credentials, Keys: keys.providers.Unwrapping(),
		Verify: &credential.VerifyOptions{LegacyKey: keys.providers.Keys.LegacyKeyOf, Progress: func(rows int) {
			if done += int64(rows); c.screen.terminal() {
				p.verifying(done, of)
			}
		}},
	})
}

func printBackup(w io.Writer, r *backup.Report) {
	line := func(format string, args ...any) { plain.Fprintf(w, format+"\n", args...) }
	if r.StoreID == "" {
		line("The database has none of Lockwood's tables: its records are upstream's, or it is a part of a backup.")
	} else {
		line("store %s", r.StoreID)
	}
	line("%s with %s, of which %d legacy", plain.Count(r.Credentials, "credential", "credentials"), plain.Count(r.Records, "record", "records"), r.LegacyRecords)
	for _, k := range r.DataKeys {
		printBackupKey(w, &k)
	}
	for _, k := range r.Lost {
		what := "is not in it: a part of a backup was restored"
		if k.Destroyed {
			what = "was destroyed"
		}
		line("data key %s, which %s names, %s; no key opens these, so restore the whole backup, or have them deposited anew", k.KeyID, plain.Count(k.Records, "record", "records"), plain.Prose(what))
	}
	if r.Grants.Known > 0 {
		line("%s of access tokens known, %d of users who have to connect again, last refreshed %s", plain.Count(r.Grants.Known, "state", "states"), r.Grants.Reauth, plain.Prose(since(r.Grants.LastRefreshedAt)))
	}
	if r.Opened == nil {
		line("Not one record was opened: %s", r.NotTried)
		return
	}
	line("%d of %s", r.Opened.OK, plain.Count(r.Opened.Records, "record opens", "records open"))
	for i, f := range r.Opened.Failed {
		if i == shownFailures {
			line("… and %d more; --json lists all", len(r.Opened.Failed)-i)
			break
		}
		line("credential %d, %s: %s", f.ID, f.Column, f.Reason)
	}
}

func printBackupKey(w io.Writer, k *backup.DataKey) {
	role := ""
	if k.Primary {
		role = ", primary"
	}
	head := fmt.Sprintf("data key %s (version %d%s, %s)", k.KeyID, k.Version, role, plain.Count(k.Records, "record", "records"))
	if k.Via != "" {
		plain.Fprintf(w, "%s opens with %s\n", plain.Prose(head), k.Via)
		return
	}
	if k.Refused {
		plain.Fprintf(w, "%s needs %s, and what is at hand did not open it: %s\n", plain.Prose(head), orNone(joinIDs(k.KEKIDs)), strings.ReplaceAll(k.Problem, "\n", "; "))
		return
	}
	plain.Fprintf(w, "%s needs %s, of which none is at hand: configure one of these, as the current, a previous or a recovery key\n", plain.Prose(head), orNone(joinIDs(k.KEKIDs)))
}

// since is a time, or never.
func since(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
