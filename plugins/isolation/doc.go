// Package isolation keeps the secrets of a process from the programs that it
// starts. A plugin runs as the same user as its host, and to the kernel that user
// is one: it lets one process of the user read the environment, the memory and the
// files of another. This package takes that away, with what the kernel offers to a
// process that has no rights at all.
//
// Harden is for the process that has something to hide. Start is for the programs
// that it must be hidden from: each runs in a Landlock domain of its own, can
// change no file but those that it was given, cannot read the files that are
// hidden from it, and gains no rights by executing another program. What a program
// leaves behind when it ends is killed. Supported and Examine tell what of this the
// system has.
//
// Linux has all of it. Other systems have Harden in part, and Start fails there.
package isolation

import "os"

// Program is a program to start.
type Program struct {
	// Path is what is executed, Args its arguments from the name on, and Env its
	// whole environment, each NAME=value.
	Path      string
	Args, Env []string
	// Files are its descriptors 0, 1, 2 and so on. It has no others.
	Files []*os.File
	// Hidden are the files and directories that it may not read or execute. Paths
	// are absolute, or relative to the working directory. One that does not exist
	// is hidden when it appears.
	//
	// The kernel can allow and not forbid. So everything is allowed but what is
	// hidden, as it is when the program starts: beside something hidden, what is
	// made later cannot be read either.
	Hidden []string
	// Writable are the files and directories that it may change, with what is
	// below; absolute paths. Those that do not exist are left out.
	Writable []string
}
