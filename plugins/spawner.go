package plugins

import (
	"runtime"
	"sync"
)

// spawner starts processes from one operating system thread that lives until it
// is closed. The kernel ties PR_SET_PDEATHSIG to the thread that started the
// child, not to the process; Go ends threads when it likes, and with them the
// plugins.
type spawner struct {
	once sync.Once
	work chan func()
	end  chan struct{}
}

func newSpawner() *spawner {
	return &spawner{work: make(chan func()), end: make(chan struct{})}
}

// do runs f on the thread and waits for it. It does nothing after close.
func (s *spawner) do(f func()) {
	s.once.Do(func() { go s.run() })
	done := make(chan struct{})
	select {
	case s.work <- func() { defer close(done); f() }:
		<-done
	case <-s.end:
	}
}

func (s *spawner) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with this function
	for {
		select {
		case f := <-s.work:
			f()
		case <-s.end:
			return
		}
	}
}

// close ends the thread, and with it every process that is still there.
func (s *spawner) close() { close(s.end) }
