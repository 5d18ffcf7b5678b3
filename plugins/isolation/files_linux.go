package isolation

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// maxEntries bounds the rules for one directory in which something is hidden. Of a
// larger one nothing can be read.
const maxEntries = 10_000

// devices are the devices that may be used. Others give access to memory and
// disks, and to the terminal, into which commands could be typed.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// readRules returns the rules that allow reading and executing what is not hidden.
// Names can be listed everywhere. The files of /proc about other processes are
// refused by the domain itself.
func readRules(hidden []string) []landlock.Rule {
	r := &reading{holes: append(places(hidden), "/proc", "/sys", "/dev")}
	r.walk("/")
	return []landlock.Rule{
		landlock.PathAccess(ll.AccessFSReadDir, "/"),
		landlock.RODirs(append(r.dirs, "/proc", "/sys")...).IgnoreIfMissing(),
		landlock.ROFiles(r.files...).IgnoreIfMissing(),
		landlock.RWFiles(devices...).IgnoreIfMissing(),
	}
}

// writeRules returns the rules for what may be changed.
func writeRules(writable []string) []landlock.Rule {
	var dirs, files []string
	for _, path := range writable {
		info, err := os.Stat(path)
		switch {
		case err != nil: // it is left out
		case info.IsDir():
			dirs = append(dirs, path)
		default:
			files = append(files, path)
		}
	}
	return []landlock.Rule{
		landlock.RWDirs(dirs...).WithIoctlDev().WithResolveUnix().IgnoreIfMissing(),
		landlock.RWFiles(files...).WithIoctlDev().WithResolveUnix().IgnoreIfMissing(),
	}
}

// reading collects what may be read: directories as a whole, and files.
type reading struct {
	holes       []string // what may not, absolute, without symbolic links
	dirs, files []string
}

// walk allows what is in dir but for the holes. Symbolic links need no rule: what
// counts is where they lead.
func (r *reading) walk(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > maxEntries {
		return
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
		case !e.IsDir():
			if !r.hides(path) {
				r.files = append(r.files, path)
			}
		case r.hides(path):
		case r.hidesBelow(path):
			r.walk(path)
		default:
			r.dirs = append(r.dirs, path)
		}
	}
}

func (r *reading) hides(path string) bool {
	return slices.Contains(r.holes, path)
}

func (r *reading) hidesBelow(dir string) bool {
	return slices.ContainsFunc(r.holes, func(hole string) bool { return strings.HasPrefix(hole, dir+"/") })
}

// places returns where paths are without symbolic links: the entry in its
// directory, and, if that is a link, what it leads to.
func places(paths []string) (found []string) {
	for _, path := range paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			continue // the working directory is gone, and with it what is relative to it
		}
		found = append(found, filepath.Join(resolve(filepath.Dir(abs)), filepath.Base(abs)))
		if target, err := filepath.EvalSymlinks(abs); err == nil {
			found = append(found, target)
		}
	}
	return found
}

// resolve follows the symbolic links in the part of dir that exists.
func resolve(dir string) string {
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		return target
	}
	above := filepath.Dir(dir)
	if above == dir {
		return dir
	}
	return filepath.Join(resolve(above), filepath.Base(dir))
}
