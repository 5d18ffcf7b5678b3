package plugins

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxImageSize bounds a plugin's file, in bytes.
const maxImageSize = 512 << 20

// openImage opens the file of a plugin, which must be executable and, like all that
// leads to it, not writable by others.
func openImage(path string) (*os.File, error) {
	f, err := openTrusted(path, "plugin")
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("opening plugin: %w", err)
	case info.Mode().Perm()&0o111 == 0:
		err = fmt.Errorf("plugin %s is not executable; run: chmod u+x %s", path, path)
	case info.Size() > maxImageSize:
		err = fmt.Errorf("plugin %s is larger than %d bytes", path, maxImageSize)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// checksum returns the SHA-256 of a plugin's file, in lower-case hexadecimal.
func checksum(path string) (string, error) {
	f, err := openImage(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return copyHashed(io.Discard, f)
}

// copyHashed copies a plugin's file and returns its SHA-256, in lower-case
// hexadecimal. The file is not kept in memory: the host would hold it for good.
func copyHashed(to io.Writer, f *os.File) (string, error) {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(to, h), io.LimitReader(f, maxImageSize+1))
	if err != nil {
		return "", fmt.Errorf("reading plugin: %w", err)
	}
	if n > maxImageSize { // it grew
		return "", fmt.Errorf("plugin %s is larger than %d bytes", f.Name(), maxImageSize)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// executable is a copy of a plugin's file that can be executed. It is made in one
// reading: what was hashed is what is executed, whatever becomes of the file.
type executable struct {
	name string // of the plugin's file
	sum  string // SHA-256 in lower-case hexadecimal
	// memory is the copy if it is one in memory, sealed against any change; refused
	// is why it is none, unless it is a script.
	memory  *os.File
	refused error
	// path is the copy if it is one on disk. It is in a directory of its own.
	path string
}

// load makes an executable of the plugin at path: in memory, where the system can
// do that; else, or if it is a script, which its interpreter opens by its path, as
// a file in base, which is private. Whoever calls it closes it.
func load(path, base string) (*executable, error) {
	f, err := openImage(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	e := &executable{name: filepath.Base(path)}
	if !isScript(f) {
		e.memory, e.refused = memoryFile(e.name)
	}
	if e.memory != nil {
		if e.sum, err = copyHashed(e.memory, f); err == nil {
			err = seal(e.memory)
		}
	} else {
		e.sum, err = e.writeCopy(f, base)
	}
	if err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func isScript(f *os.File) bool {
	var start [2]byte
	n, _ := f.ReadAt(start[:], 0)
	return string(start[:n]) == "#!"
}

// writeCopy writes a copy to disk, in a directory below base.
func (e *executable) writeCopy(from *os.File, base string) (sum string, err error) {
	dir, err := os.MkdirTemp(base, "program-") // 0700
	if err != nil {
		return "", fmt.Errorf("copying plugin: %w", err)
	}
	e.path = filepath.Join(dir, e.name)
	to, err := os.OpenFile(e.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o500) //nolint:gosec // it is a program, in a directory of mode 0700
	if err != nil {
		return "", fmt.Errorf("copying plugin: %w", err)
	}
	sum, err = copyHashed(to, from)
	if closeErr := to.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("copying plugin: %w", closeErr)
	}
	return sum, err
}

// moveToDisk replaces a copy in memory that the system does not execute by one on
// disk.
func (e *executable) moveToDisk(base string, because error) error {
	memory := e.memory
	e.memory, e.refused = nil, because
	defer memory.Close()
	if _, err := memory.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("copying plugin: %w", err)
	}
	sum, err := e.writeCopy(memory, base)
	if err == nil && sum != e.sum {
		err = errors.New("copying plugin: the copy differs")
	}
	return err
}

// cause says, of a failure to execute the copy, what the operator can do about it.
func (e *executable) cause(err error) error {
	if e.memory != nil || !executesNothing(filepath.Dir(e.path)) {
		return err
	}
	if e.refused == nil {
		return fmt.Errorf("%w: %s is a script and runs from a copy in %s, which is mounted noexec; set TMPDIR to a directory where programs are executed", errConfiguration, e.name, filepath.Dir(e.path))
	}
	return fmt.Errorf("%w: %s can be executed neither from memory (%w) nor from a copy in %s, which is mounted noexec; permit memfd_create, or set TMPDIR to a directory where programs are executed", errConfiguration, e.name, e.refused, filepath.Dir(e.path))
}

// release lets go of a copy in memory. A process that runs from it keeps it.
func (e *executable) release() {
	if e.memory != nil {
		_ = e.memory.Close()
		e.memory = nil
	}
}

// close removes the copy.
func (e *executable) close() {
	e.release()
	if e.path != "" {
		_ = os.RemoveAll(filepath.Dir(e.path))
	}
}
