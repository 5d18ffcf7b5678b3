package isolation_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// steal tries each way that it knows to the secrets of its host, and of another
// process: HOST-PID DIR VICTIM-PID. It returns what each came to: "got" or an error.
func steal(args []string) map[string]string {
	host, _ := strconv.Atoi(args[0])
	dir := args[1]
	victim, _ := strconv.Atoi(args[2])
	found := make(map[string]string)
	try := func(what string, f func() error) {
		if err := f(); err != nil {
			found[what] = err.Error()
		} else {
			found[what] = "got"
		}
	}
	try("descriptors", descriptors) // before it has opened any itself
	for name, pid := range map[string]int{"host": host, "victim": victim} {
		robProcess(name, pid, try)
	}
	robFiles(dir, try)
	spoil(dir, try)
	try("terminal", func() error { return open("/dev/tty", os.O_RDWR) })
	try("core pattern", func() error { return open("/proc/sys/kernel/core_pattern", os.O_WRONLY) })
	try("kernel memory", func() error { return readByte("/proc/kcore") })
	disks, _ := filepath.Glob("/dev/[vsx]d[a-z]")
	if len(disks) > 0 {
		try("disk", func() error { return readByte(disks[0]) })
	}
	try("mount", func() error { return unix.Mount("none", filepath.Join(dir, "scratch"), "tmpfs", 0, "") })
	try("mount in a user namespace", mountInside)
	try("rights", rights)
	return found
}

// robProcess tries the environment, the memory, the descriptors and the signals of a
// process, and of each of its threads.
func robProcess(name string, pid int, try func(string, func() error)) {
	proc := fmt.Sprintf("/proc/%d", pid)
	try(name+" environ", func() error { return contains(proc + "/environ") })
	try(name+" mem", func() error { return readMemory(proc) })
	try(name+" descriptor", func() error { // the key file, in the host and the victim
		f, err := os.Open(proc + "/fd/3")
		if err == nil {
			return f.Close()
		}
		_, err = os.Readlink(proc + "/fd/3")
		return err
	})
	try(name+" working directory", func() error { return contains(proc + "/cwd/key") })
	try(name+" root directory", func() error {
		dir, err := os.Getwd() // the host's, too
		if err != nil {
			return err
		}
		return contains(proc + "/root" + filepath.Join(dir, "key"))
	})
	try(name+" ptrace", func() error {
		err := unix.PtraceSeize(pid)
		if err == nil {
			_ = unix.PtraceDetach(pid)
		}
		return err
	})
	try(name+" process_vm_readv", func() error {
		var b [1]byte
		_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 1}}, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&b)), Len: 1}}, 0)
		if errors.Is(err, unix.EFAULT) {
			err = nil // permitted, at an address that is not mapped
		}
		return err
	})
	try(name+" pidfd_getfd", func() error {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.PidfdGetfd(fd, 0, 0)
		return err
	})
	try(name+" signal", func() error { return unix.Kill(pid, 0) })
	threads, _ := filepath.Glob(proc + "/task/*")
	try(name+" threads", func() error {
		for _, thread := range threads {
			if contains(thread+"/environ") == nil || readMemory(thread) == nil {
				return nil
			}
		}
		return fs.ErrPermission
	})
}

// robFiles tries the files that hold the secret, by each path that leads there.
func robFiles(dir string, try func(string, func() error)) {
	key := filepath.Join(dir, "data/key")
	for _, name := range []string{"data/key", "data/vault.db", "data/vault.db-wal"} {
		try(name, func() error { return contains(filepath.Join(dir, name)) })
	}
	try("relative", func() error { return contains("key") })
	try("own root", func() error { return contains("/proc/self/root" + key) })
	try("own working directory", func() error { return contains("/proc/self/cwd/key") })
	try("descriptor of the directory", func() error {
		d, err := unix.Open(filepath.Dir(key), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		fd, err := unix.Openat(d, "key", unix.O_RDONLY, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	})
	scratch := os.Getenv("TMPDIR")
	try("symbolic link", func() error {
		link := filepath.Join(scratch, "symlink")
		if err := os.Symlink(key, link); err != nil {
			return err
		}
		return contains(link)
	})
	try("hard link", func() error {
		link := filepath.Join(scratch, "link")
		if err := os.Link(key, link); err != nil {
			return err
		}
		return contains(link)
	})
	try("another program", func() error {
		out, err := exec.Command("/bin/cat", key).Output()
		if err == nil && !bytes.Contains(out, []byte(theSecret)) {
			err = errors.New("it printed something else")
		}
		return err
	})
	try("handle", func() error {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, key, 0)
		if err != nil {
			return err
		}
		d, err := unix.Open(scratch, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		_, err = unix.OpenByHandleAt(d, handle, unix.O_RDONLY)
		return err
	})
}

// spoil tries to change what is not its own.
func spoil(dir string, try func(string, func() error)) {
	db := filepath.Join(dir, "data/vault.db")
	try("write database", func() error { return open(db, os.O_WRONLY) })
	try("truncate database", func() error { return os.Truncate(db, 0) })
	try("move database", func() error { return os.Rename(db, db+".moved") })
	try("remove database", func() error { return os.Remove(db + "-wal") })
	try("write home", func() error { return os.WriteFile(filepath.Join(dir, "home/.profile"), []byte("cat key"), 0o600) })
	try("write beside", func() error { return os.WriteFile(filepath.Join(dir, "data/new"), nil, 0o600) })
	try("write shared memory", func() error { return os.WriteFile("/dev/shm/lockwood-test", nil, 0o600) })
}

// open opens a file and closes it again.
func open(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func readByte(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 1))
	return err
}

// contains reports, as an error, that a file cannot be read or is without the secret.
func contains(path string) error {
	b, err := os.ReadFile(path)
	if err == nil && !bytes.Contains(b, []byte(theSecret)) {
		err = errors.New("the secret is not in it")
	}
	return err
}

// readMemory reads a byte of the first mapping of a process.
func readMemory(proc string) error {
	maps, err := os.ReadFile(proc + "/maps")
	if err != nil {
		return err
	}
	start, _, _ := strings.Cut(string(maps), "-")
	at, err := strconv.ParseInt(start, 16, 64)
	if err != nil {
		return err
	}
	mem, err := os.Open(proc + "/mem")
	if err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.ReadAt(make([]byte, 1), at)
	return err
}

// descriptors looks for an open file that it was not given.
func descriptors() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		switch {
		case err != nil, strings.HasPrefix(target, "anon_inode:"), strings.HasPrefix(target, "pipe:"), strings.HasPrefix(target, "/proc/"), strings.HasPrefix(target, "/sys/fs/cgroup/"): // its own
		case slices.Contains([]string{"0", "1", "2"}, e.Name()):
		default:
			fmt.Fprintln(os.Stderr, "descriptor", e.Name(), "is of", target)
			return nil
		}
	}
	return errors.New("there is none")
}

// rights looks for capabilities, of its own or to be gained.
func rights() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "CapInh", "CapPrm", "CapEff", "CapAmb":
			if strings.Trim(value, "0") != "" {
				return nil
			}
		case "NoNewPrivs":
			if value != "1" {
				return nil
			}
		}
	}
	return errors.New("there are none")
}

// mountInside makes a user namespace, where anybody has every capability, and a
// mount namespace in it.
func mountInside() error {
	cmd := exec.Command("/bin/mount", "-t", "tmpfs", "none", "/mnt")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
	}
	return cmd.Run()
}

// leaveBehind starts a process that belongs to nobody, and ends, or stays: [stay]
// and the arguments of steal.
func leaveBehind(args []string) error {
	stay := args[0] == "stay"
	if stay {
		args = args[1:]
	}
	cmd := &exec.Cmd{Path: filepath.Join(args[1], "program"), Args: append([]string{"leftover"}, args...), Env: os.Environ(), Stderr: os.Stderr}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := io.Copy(os.Stdout, out); err != nil { // its process ID
		return err
	}
	if stay {
		select {}
	}
	return nil
}

// outlive says which process it is, and waits until its host is gone, or for good.
// Then it steals what it can from the victim, and writes down what that came to.
func outlive(args []string) error {
	self, err := os.Readlink("/proc/self") // as the host has it, and not a namespace
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, self)
	_ = os.Stdout.Close()
	for {
		if _, err := os.Stat(filepath.Join("/proc", args[0])); err != nil {
			break
		}
		pause()
	}
	report, err := json.Marshal(steal(args))
	if err != nil {
		return err
	}
	path := filepath.Join(os.Getenv("TMPDIR"), "report")
	if err := os.WriteFile(path+".new", report, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// pause waits a moment.
func pause() { <-time.After(5 * time.Millisecond) }
