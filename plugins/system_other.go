//go:build !linux

package plugins

import (
	"errors"
	"os"
	"syscall"
)

// errSystem is why no plugin runs here: the host could not keep its own memory
// from the plugin, nor be sure that the plugin ends with it.
var errSystem = errors.New("key provider plugins need Linux")

func harden() error { return errSystem }

func sealed(*image) (*os.File, error) { return nil, errSystem }

func processAttributes() *syscall.SysProcAttr { return nil }

func waitExited(int) {}

func killGroup(int) {}

func lockFD(uintptr) bool { return false }
