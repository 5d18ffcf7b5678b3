package main

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// clearLine takes the cursor to the first column and clears the line.
const clearLine = "\r\x1b[K"

// screen is standard error. Where that is a terminal, a line that changes may stand
// below what was written; what is written meanwhile goes above it. It is safe for
// concurrent use.
type screen struct {
	file *os.File // nil unless it is a terminal

	mu   sync.Mutex // guards what follows
	w    io.Writer
	line string // shown now, shorter than the screen is wide, or ""
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.file = f
	}
	return s
}

// terminal reports whether it is one.
func (s *screen) terminal() bool { return s.file != nil }

// columns is how wide the terminal is now, or 0 where that is not known.
func (s *screen) columns() int {
	if s.file == nil {
		return 0
	}
	width, _, err := term.GetSize(int(s.file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.w.Write(p)
	}
	if _, err := io.WriteString(s.w, clearLine); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	if err == nil && len(p) > 0 && p[len(p)-1] == '\n' {
		_, err = io.WriteString(s.w, s.line)
	}
	return n, err
}

// show puts line in the place of the one that is shown; "" only takes that away. A
// line that is as wide as the terminal would break, so it has to be shorter.
func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line == s.line {
		return
	}
	s.line = line
	_, _ = io.WriteString(s.w, clearLine+line) // where it fails nobody is left to look
}
