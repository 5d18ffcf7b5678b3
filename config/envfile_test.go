package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/config"
)

// Each line that is wrong is told with its place and a cause of its own, all of them
// at once, and nothing of what they hold.
func TestMistakesInAnEnvFile(t *testing.T) {
	for line, want := range map[string]string{
		"HUNTER2 is not a line":         ":3:22: the line has no =",
		"HUNTER2":                       ":3:8: the line has no =",
		"  export HUNTER2":              ":3:17: the line has no =",
		"HUNT-ER2=x":                    ":3:5: a name holds letters",
		"\u00e9=HUNTER2":                ":3:1: a name holds letters",
		"X='HUNTER2":                    ":3:3: the quotation mark is never closed",
		"export X = \"HUNTER2":          ":3:12: the quotation mark is never closed",
		"X='HUNTER2'HUNTER2":            ":3:12: text follows the closing quotation mark",
		"X=\"\u00e9\" HUNTER2":          ":3:6: text follows the closing quotation mark",
		"X='HUNTER2' HUNTER2 # comment": ":3:12: text follows the closing quotation mark",
		"X='HUNTER2\r":                  ":3:3: the quotation mark is never closed",
	} {
		for form, text := range map[string]string{
			"last": "# comment\n" + line, "in the middle": "\n" + line + "\nHTTP_PORT=1\nZ='a' # b\n",
		} {
			c, err := loadFile(t, text, 0o600)
			if err == nil || !strings.Contains(err.Error(), ".env"+want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "HUNT") {
				t.Errorf("%q %s: %v; want %q", line, form, err, want)
			}
			if form == "in the middle" && c.HTTPPort != 1 {
				t.Errorf("%q: the other lines are not read", line)
			}
		}
	}
	_, err := loadFile(t, "HUNTER2\nX='two\nlines'\n\nX=\"HUNTER2\nLOG_LEVEL=hunter2\n", 0o600)
	for _, want := range []string{".env:2:8: the line has no =", ".env:6:3: the quotation mark is never closed", "LOG_LEVEL: want"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "\n") != 2 {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// A secret that may stand in a line that cannot be read is not said to be missing.
func TestAnEnvFileWithoutTheSecret(t *testing.T) {
	path := keep(t, "FOREST_AUTH_SECRET='"+secret+"\n")
	_, err := config.Load(nil, config.EnvFile{Path: path})
	if err == nil || !strings.HasPrefix(err.Error(), path+":1:20: ") || strings.Contains(err.Error(), "not set") {
		t.Error(err)
	}
}

func TestEnvFilesThatCannotBeRead(t *testing.T) {
	closed := keep(t, "LOG_LEVEL=debug\n")
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(t.TempDir(), "none")
	files := map[string]string{
		none:                                  "does not exist",
		t.TempDir():                           "directory",
		keep(t, "\xff\xfeL\x00O\x00G\x00"):    "UTF-16",
		filepath.Join(keep(t, "x=y"), "none"): "cannot be read",
	}
	if os.Geteuid() != 0 {
		files[closed] = "may not read"
	}
	for path, want := range files {
		_, err := config.Load([]string{"HTTP_PORT=none"}, config.EnvFile{Path: path})
		if err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "HTTP_PORT: want") {
			t.Errorf("%s: %v; want %q and what else is wrong", path, err, want)
		}
	}
	if _, err := loadBeside(t, config.EnvFile{Path: none, Optional: true}); err != nil {
		t.Errorf("one that need not exist: %v", err)
	}
	if _, err := loadBeside(t, config.EnvFile{Path: os.DevNull}); err != nil {
		t.Errorf("%s: %v", os.DevNull, err)
	}
	if c, err := loadBeside(t, config.EnvFile{Path: keep(t, "\ufeffHTTP_PORT=1\r\n")}); err != nil || c.HTTPPort != 1 {
		t.Errorf("with a byte order mark: %v", err)
	}
}

// loadBeside loads file with a usable auth secret in the environment.
func loadBeside(t *testing.T, file config.EnvFile) (*config.Config, error) {
	t.Helper()
	return config.Load([]string{"FOREST_AUTH_SECRET=" + secret}, file)
}
