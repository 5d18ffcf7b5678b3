//go:build !linux

package isolation

import (
	"errors"
	"runtime"
)

// errSystem is why nothing is started here: the host could not keep its memory and
// its files from the program, nor be sure that the program ends with it.
var errSystem = errors.New("this system cannot keep the secrets of a process from the programs that it starts; Linux can")

// Supported reports, as an error, that programs cannot be started here.
func Supported() error { return errSystem }

// Examine tells what this system offers.
func Examine() Facts { return Facts{System: runtime.GOOS} }

// AdoptOrphans does nothing: there are no programs whose orphans they could be.
func AdoptOrphans() error { return nil }

// Process is a program that was started.
type Process struct{}

// Start fails: see Supported.
func Start(*Program) (*Process, error) { return nil, errSystem }

// PID is of no process.
func (*Process) PID() int { return 0 }

// Exited never is.
func (*Process) Exited() <-chan struct{} { return nil }

// Err says that nothing ran.
func (*Process) Err() error { return errSystem }

// Kill has nothing to kill.
func (*Process) Kill() {}
