// Package resident gives back memory that the start of a program needs and nothing after
// it: the code and the tables of every package that was initialised, which stay mapped from
// the program's file, and a heap that was larger for a moment. What a service holds while
// it has nothing to do is paid for on every instance.
//
// Nothing is lost. A page of the file that is needed again is mapped again when it is
// touched, from the system's page cache.
//
// The package depends on the standard library only.
package resident

import "time"

// settling is how long a process is used before its start counts as over: the first calls
// come at once, and need most of what the start has mapped.
const settling = time.Second

// TrimSoon calls Trim when the start, which is assumed to be under way, is over. It does not
// wait for that. It is safe for concurrent use.
func TrimSoon() { time.AfterFunc(settling, Trim) }
