package remote

import (
	"fmt"
	"os"
	"runtime"
	"slices"
)

// others are the permissions of everybody but a file's owner and its group.
const others os.FileMode = 0o007

// FileWarnings warns of each file that others on this machine can read or write. files
// has the name of a file by the option that names it; "" and what cannot be looked at
// are passed over, since whoever reads the file says what is wrong with it. Windows
// keeps other rights than these, and is not looked at.
func FileWarnings(files map[string]string) (warnings []string) {
	if runtime.GOOS == "windows" {
		return nil
	}
	for option, name := range files {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err == nil && info.Mode().Perm()&others != 0 {
			warnings = append(warnings, fmt.Sprintf("every user of this machine has access to the file of %s: run: chmod o= %s", option, name))
		}
	}
	slices.Sort(warnings)
	return warnings
}
