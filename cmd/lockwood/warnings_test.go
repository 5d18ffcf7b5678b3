package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// A warning of the key provider is everywhere where an operator looks: in the log, in
// /readyz, in key status, in doctor, and in plugin check.
func TestProviderWarningsAreShown(t *testing.T) {
	t.Parallel()
	_, key, uri, aws := awsKey(t)
	d := sqliteDatabase(t)
	env := append(append(d.with("FOREST_EXECUTOR_ENCRYPTION_KEY"), pluginsEnv(t)...), append(aws, "FOREST_EXECUTOR_KEY_PROVIDER="+uri)...)
	key.Expire(time.Date(2031, 5, 6, 0, 0, 0, 0, time.UTC))
	const says = "expires on 2031-05-06"
	s := serve(t, env).ready(t)
	if text := bodyOf(t, s.admin+"/readyz"); !strings.Contains(text, says) {
		t.Errorf("/readyz says nothing of it: %s", text)
	}
	pgtest.Eventually(t, "the log tells of it", func() bool { return strings.Contains(s.log.String(), says) })
	for _, command := range [][]string{{"key", "status"}, {"doctor"}, {"plugin", "check", uri}} {
		if r := do(t, env, command...); !strings.Contains(r.stdout, says) {
			t.Errorf("%v says nothing of it:\n%s%s", command, r.stdout, r.stderr)
		}
	}
}

// What a provider can warn of only once there is a wrap is told by commands that look once.
func TestProviderWarningsOfAWrap(t *testing.T) {
	t.Parallel()
	server, _, uri, aws := awsKey(t)
	server.NoDryRun = true
	env := append(append(sqliteDatabase(t).with("FOREST_EXECUTOR_ENCRYPTION_KEY"), pluginsEnv(t)...), append(aws, "FOREST_EXECUTOR_KEY_PROVIDER="+uri)...)
	fill(t, env, 1)
	for _, command := range [][]string{{"key", "status"}, {"doctor"}, {"plugin", "check", uri}} {
		if r := do(t, env, command...); !strings.Contains(r.stdout, "does not know DryRun") {
			t.Errorf("%v says nothing of it:\n%s%s", command, r.stdout, r.stderr)
		}
	}
}

// Each warning is one line when it appears, and one when it goes.
func TestWarningLog(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "event" {
			return slog.Attr{}
		}
		return a
	}}))
	var told warningLog
	for _, warnings := range [][]string{nil, {"a"}, {"a"}, {"a", "b"}, {"b"}, {"b"}, nil, nil} {
		told.tell(log, warnings)
	}
	want := `level=WARN msg="the key provider warns" warning=a
level=WARN msg="the key provider warns" warning=b
level=INFO msg="a warning of the key provider has gone" warning=a
level=INFO msg="a warning of the key provider has gone" warning=b
`
	if b.String() != want {
		t.Errorf("the log is\n%s, want\n%s", &b, want)
	}
}
