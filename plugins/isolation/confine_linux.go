package isolation

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// confine restricts this thread, and whatever it starts, for good: no program that
// is executed gains rights, root's included; and Landlock.
//
// Being in a Landlock domain, whatever its rules, keeps a process from every
// process outside: the kernel refuses ptrace(2) and the files of /proc/PID that
// are as good ("Ptrace restrictions" in the kernel's Landlock documentation), and
// signals from version 6 of the interface on.
func confine(p *Program) error {
	if err := dropRights(); err != nil {
		return err
	}
	rules := append(readRules(p.Hidden), writeRules(p.Writable)...)
	fd, flags, err := restrictions().NewRulesetFD(rules...)
	if err != nil {
		return fmt.Errorf("making the Landlock ruleset: %w", err)
	}
	if fd < 0 {
		return nil // no Landlock
	}
	defer unix.Close(fd)
	if err := ll.LandlockRestrictSelf(fd, flags); err != nil {
		return fmt.Errorf("entering the Landlock domain: %w", err)
	}
	return nil
}

// restrictions are what is refused unless a rule allows it: files, signals, and
// abstract unix sockets of others. The network is not: a plugin exists to use it.
func restrictions() landlock.Config {
	return landlock.Config{HandledAccessFS: landlock.V11.HandledAccessFS, Scoped: landlock.V11.Scoped}.BestEffort()
}

// landlockVersion returns the version of Landlock's interface, or 0.
func landlockVersion() int {
	version, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return version
}

// dropRights keeps this thread's children from gaining rights: those of set-user-ID
// programs and file capabilities, and those that root has by being root. It takes
// none from the thread itself, which may need one to make a namespace.
func dropRights() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	for capability := uintptr(0); capability <= unix.CAP_LAST_CAP; capability++ {
		// Without CAP_SETPCAP this fails, and then there is little to drop: only root
		// has the bounding set's capabilities after executing a program.
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	header, data := capabilities()
	for i := range data {
		data[i].Inheritable = 0
	}
	_ = unix.Capset(header, &data[0])
	return nil
}

// capabilities returns those of this thread, and the header that they go with.
func capabilities() (*unix.CapUserHeader, *[2]unix.CapUserData) {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_ = unix.Capget(header, &data[0])
	return header, &data
}

// maySeparate reports whether this thread has the capability to make a PID
// namespace. A user namespace, in which anybody has it, is not used: files of root
// would seem to belong to nobody there, and plugins judge files by their owner.
func maySeparate() bool {
	_, data := capabilities()
	return data[unix.CAP_SYS_ADMIN/32].Effective&(1<<(unix.CAP_SYS_ADMIN%32)) != 0 && os.Geteuid() == 0
}
