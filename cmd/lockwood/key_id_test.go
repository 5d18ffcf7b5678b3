package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The KEK ID of a key that somebody holds is the one that status shows, wherever the key
// is.
func TestKeyID(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 1)
	want := string(d.status(t, d.env).KEKID) + "\n"
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file, spaced, wide := write("key", testKey+"\n"), write("spaced", " "+testKey), write("wide", strings.Join(strings.Split(testKey, ""), "\x00"))
	for name, r := range map[string]result{
		"a variable":     do(t, []string{"MINE=" + testKey}, "key", "id", "--variable", "MINE"),
		"a file":         do(t, nil, "key", "id", "--file", file),
		"standard input": piped(t, testKey+"\n", "key", "id"),
	} {
		if r.code != exitOK || r.stdout != want || r.stderr != "" {
			t.Errorf("%s: exit code %d, %q, want %q\n%s", name, r.code, r.stdout, want, r.stderr)
		}
	}
	var ids keyIDs
	do(t, nil, "key", "id", "--json", "--file", file).json(t, &ids)
	if len(ids.KEKIDs) != 1 || string(ids.KEKIDs[0])+"\n" != want || ids.Warnings == nil {
		t.Errorf("as JSON: %+v", ids)
	}
	if r := do(t, nil, "key", "id", "--file", spaced); r.code != exitOK || r.stdout == want || !strings.HasPrefix(r.stderr, "warning: ") || strings.Contains(r.stderr, "FOREST_") {
		t.Errorf("white space: exit code %d, %q\n%s", r.code, r.stdout, r.stderr)
	}
	for what, r := range map[string]result{
		"is not set":         do(t, nil, "key", "id", "--variable", "NONE"),
		"no such":            do(t, nil, "key", "id", "--file", filepath.Join(dir, "none")),
		"UTF-16":             do(t, nil, "key", "id", "--file", wide),
		"is empty":           piped(t, "\n", "key", "id"),
		"not UTF-8":          do(t, []string{"B=\xff\xfe\xfd"}, "key", "id", "--variable", "B"),
		"exclude each other": do(t, nil, "key", "id", "--variable", "A", "--file", "b"),
	} {
		if r.code != exitUsage || !strings.Contains(r.stderr, what) || strings.Contains(r.stderr, testKey[:8]) {
			t.Errorf("exit code %d, want %d and %q\n%s", r.code, exitUsage, what, r.stderr)
		}
	}
	identity, variable := ageIdentity(t)
	_, recipient, _ := strings.Cut(variable, "://")
	if r := do(t, nil, "key", "id", "--identity", identity); r.code != exitOK || strings.TrimSpace(r.stdout) != "age:"+recipient && !strings.HasPrefix(r.stdout, "age:") {
		t.Errorf("an identity: exit code %d, %q\n%s", r.code, r.stdout, r.stderr)
	}
}

// piped runs a command whose standard input is text.
func piped(t *testing.T, text string, args ...string) result {
	t.Helper()
	return finish(t, lockwood(t.Context(), t, nil, args...), text)
}
