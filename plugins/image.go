package plugins

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxImageSize bounds a plugin's file, in bytes.
const maxImageSize = 512 << 20

// image is the content of a plugin's file. It is read once: what is hashed is what
// is executed, whatever happens to the file meanwhile.
type image struct {
	name  string // of the file
	bytes []byte
	sum   string // SHA-256 in lower-case hexadecimal
}

// readImage reads a plugin, which must be executable and, like all that leads to
// it, not writable by others.
func readImage(path string) (*image, error) {
	f, err := openTrusted(path, "plugin")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening plugin: %w", err)
	}
	if info.Mode().Perm()&0o111 == 0 {
		return nil, fmt.Errorf("plugin %s is not executable; run: chmod u+x %s", path, path)
	}
	var b bytes.Buffer
	b.Grow(int(min(info.Size(), maxImageSize)) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(f, maxImageSize+1)); err != nil {
		return nil, fmt.Errorf("reading plugin: %w", err)
	}
	if b.Len() > maxImageSize {
		return nil, fmt.Errorf("plugin %s is larger than %d bytes", path, maxImageSize)
	}
	sum := sha256.Sum256(b.Bytes())
	return &image{name: filepath.Base(path), bytes: b.Bytes(), sum: hex.EncodeToString(sum[:])}, nil
}

// executable is an image that can be executed.
type executable struct {
	path string
	// file is passed to the process as descriptor 3 if path names it; else nil.
	file *os.File
}

func (e *executable) close() {
	if e.file != nil {
		_ = e.file.Close()
	}
}

// stage makes img executable: in memory, sealed against any change, where the
// system can do that; else as a copy in dir, which is private. A script has to be
// a file, since its interpreter opens it by its path.
func (img *image) stage(dir string) (*executable, error) {
	script := bytes.HasPrefix(img.bytes, []byte("#!"))
	if !script {
		if f, err := sealed(img); err == nil {
			return &executable{path: "/proc/self/fd/3", file: f}, nil
		}
	}
	path := filepath.Join(dir, img.name)
	if err := os.WriteFile(path, img.bytes, 0o500); err != nil { //nolint:gosec // it is a program, in a directory of mode 0700
		return nil, fmt.Errorf("copying plugin: %w", err)
	}
	return &executable{path: path}, nil
}
