package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/config"
)

// loadFile loads a .env file that also holds a usable auth secret.
func loadFile(t *testing.T, text string, mode os.FileMode, environ ...string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte("FOREST_AUTH_SECRET="+secret+"\n"+text), mode); err != nil {
		t.Fatal(err)
	}
	return config.Load(environ, config.EnvFile{Path: path})
}

// A key in a .env file is exactly what its line shows, or an error.
func TestDotenvKeyIsExactOrRefused(t *testing.T) {
	const name = "FOREST_EXECUTOR_ENCRYPTION_KEY"
	tests := []struct{ line, want string }{ // want "" is an error
		{name + "=abc", "abc"},
		{name + "=abc   # a comment", "abc"},
		{"export " + name + " = abc\r", "abc"},
		{name + "=a=b$c\\d", "a=b$c\\d"}, // $ before a small letter stands for itself
		{name + "='a $B \\n #c'", "a $B \\n #c"},
		{name + "='a' # a comment", "a"},
		{name + `="a #b"`, "a #b"},
		{name + "=' \xff\xfe '", " \xff\xfe "},
		{name + "=old\n" + name + "=new", "new"},
		{name + "=abc$DEF", ""},
		{name + "=$DEF", ""},
		{name + `="abc$DEF"`, ""},
		{name + `="a\nb"`, ""},
		{name + `="a\\b"`, ""},
		{name + "=abc#def", ""},
		{name + "= # a comment", ""},
		{name + "=`abc`", ""},
		{name + "=a\xffb", ""},
		{name + "=abc\u00a0", ""},
		{name + "=''abc''", ""},
		{name + "='two\nlines'", ""},
	}
	for _, tt := range tests {
		c, err := loadFile(t, tt.line+"\n", 0o600)
		switch {
		case tt.want != "" && (err != nil || string(c.EncryptionKey) != tt.want):
			t.Errorf("%q gives %q, %v; want %q", tt.line, []byte(c.EncryptionKey), err, tt.want)
		case tt.want == "" && (err == nil || !strings.Contains(err.Error(), name+":") && !strings.Contains(err.Error(), "between single quotes")):
			t.Errorf("%q gives %q, %v; want an error", tt.line, []byte(c.EncryptionKey), err)
		}
		if err != nil && strings.Contains(err.Error(), "abc") {
			t.Errorf("the error repeats the value: %v", err)
		}
	}
}

// What the environment has set, even to nothing, is not read from the file.
func TestDotenvEnvironmentWins(t *testing.T) {
	const line = "FOREST_EXECUTOR_ENCRYPTION_KEY=abc$DEF\n"
	for _, key := range []string{"", "of the environment \xff"} {
		c, err := loadFile(t, line, 0o600, "FOREST_EXECUTOR_ENCRYPTION_KEY="+key)
		if err != nil || string(c.EncryptionKey) != key {
			t.Errorf("got %q, %v; want %q", []byte(c.EncryptionKey), err, key)
		}
	}
}

func TestDotenvReadableByOthers(t *testing.T) {
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o400: 0, 0o644: 1, 0o640: 1} {
		c, err := loadFile(t, "", mode)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Warnings) != want || want == 1 && !strings.Contains(c.Warnings[0], "chmod 600") {
			t.Errorf("mode %o: warnings %q, want %d", mode, c.Warnings, want)
		}
	}
}
