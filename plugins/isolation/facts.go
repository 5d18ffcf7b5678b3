package isolation

// Facts are what the system offers to this process. The zero value is a system
// that offers nothing.
type Facts struct {
	// System is the name of the operating system, as Go has it.
	System string
	// Hardened says that the memory and the environment of this process cannot be
	// read by another process of the same user.
	Hardened bool
	// Landlock is the version of Landlock's interface, or 0 if the kernel has none
	// or a filter of system calls refuses it. Version 6 also refuses signals to
	// processes outside, and version 9 connections to their unix sockets.
	Landlock int
	// Namespace says that programs get a PID namespace of their own, so that what
	// they start ends with them in every case.
	Namespace bool
	// Adopts says that what programs leave behind is killed when they end.
	Adopts bool
}

// The versions of Landlock's interface from which it refuses more.
const (
	landlockSignals = 6
	landlockSockets = 9
)

// ReadsFiles says that a program that is started can read every file that its user
// can, and the environment and memory of processes that are not hardened.
func (f Facts) ReadsFiles() bool { return f.Landlock == 0 }

// Signals says that a program that is started can send signals to other processes
// of its user, and so end them.
func (f Facts) Signals() bool { return f.Landlock < landlockSignals && !f.Namespace }

// Connects says that a program that is started can connect to unix sockets that
// its user may connect to.
func (f Facts) Connects() bool { return f.Landlock < landlockSockets }
