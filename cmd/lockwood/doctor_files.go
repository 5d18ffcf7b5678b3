package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/internal/wiring"
)

// checkFiles warns of secrets that every user of the machine can read. The owner's
// group may: so Kubernetes and systemd hand secrets to a user.
func checkFiles(cfg *config.Config) (findings []finding) {
	for _, f := range wiring.SecretFiles(cfg) {
		info, err := os.Stat(f.Path)
		if f.Path == "" || err != nil || !openToOthers(f.Path, info) {
			continue // what cannot be read is told by whatever needs it
		}
		findings = append(findings, finding{
			"secret file", verdictWarn, fmt.Sprintf("other users can read or change %s (%s, mode %04o)", f.Path, f.Named, info.Mode().Perm()),
			"run: chmod o= " + quoted(f.Path) + "; in Kubernetes, set defaultMode: 0440 in the volume",
		})
	}
	return findings
}

// openToOthers reports whether others than the owner and the group can read or write
// the file at path, of which info tells. Its directory may keep them out.
func openToOthers(path string, info fs.FileInfo) bool {
	if !grants(info, 0o006) {
		return false
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return true
	}
	dir, err := os.Stat(filepath.Dir(target))
	return err != nil || dir.Mode().Perm()&0o001 != 0
}
