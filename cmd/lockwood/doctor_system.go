package main

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/lockwood-kms/lockwood/plugins/isolation"
)

// windows is the system whose files have no modes and no owner that is a number.
const windows = "windows"

// grants reports whether the mode of a file lets whoever mask stands for read or
// change it. On Windows it says nothing.
func grants(info fs.FileInfo, mask fs.FileMode) bool {
	return isolation.Examine().System != windows && info.Mode().Perm()&mask != 0
}

// checkSystem says what the system does not do for this process, and for the plugins
// if there are any.
func checkSystem(f isolation.Facts, plugins bool) []finding {
	if f.System == "linux" {
		return checkLinux(f, plugins)
	}
	lacks := []string{"plugins do not run here, so that the KEK is the env key"}
	remedy := "for a key in a KMS, run the service on Linux"
	if f.System == windows {
		lacks = append(lacks,
			"other processes of this user can read the key in this process's memory and environment",
			"crash dumps may hold it",
			"new files, .env and the database among them, are as open as their directory")
		remedy += "; on Windows give it a user of its own, a directory that only this user can open, and turn off crash dumps (Windows Error Reporting) for it"
	} else {
		lacks = append(lacks, "other processes of this user can read the key in this process's environment, if it stands there")
		remedy += "; here, put the key into a file"
	}
	return []finding{{"system", verdictWarn, strings.Join(lacks, "; "), remedy}}
}

func checkLinux(f isolation.Facts, plugins bool) (findings []finding) {
	if !f.Hardened {
		findings = append(findings, finding{"memory", verdictWarn, "other processes of this user can read the key in this process's memory and environment", "permit prctl(PR_SET_DUMPABLE) and prlimit in the filter of system calls"})
	}
	switch {
	case !plugins:
	case f.ReadsFiles():
		findings = append(findings, finding{"isolation", verdictWarn,
			"without Landlock a plugin, and what it leaves behind, can read every file that this user can: key files, .env and the embedded database. The environment and the memory of Lockwood's processes stay closed to it",
			"use Linux 5.13 or later with landlock in /sys/kernel/security/lsm, and permit landlock_create_ruleset, landlock_add_rule and landlock_restrict_self in the filter of system calls"})
	default:
		findings = append(findings, finding{"isolation", verdictOK, isolationDetail(f), ""})
	}
	return findings
}

// isolationDetail says what a plugin cannot do on this kernel, and what it can.
func isolationDetail(f isolation.Facts) string {
	detail := fmt.Sprintf("plugins run under Landlock %d: they cannot read the key files, .env, the embedded database, or other processes, and can change no file but their own", f.Landlock)
	var can []string
	if f.Signals() {
		can = append(can, "end processes of this user (Linux 6.12 or later prevents it)")
	}
	if f.Connects() {
		can = append(can, "connect to unix sockets of this user")
	}
	if len(can) > 0 {
		detail += "; they can " + strings.Join(can, ", and ")
	}
	return detail
}
