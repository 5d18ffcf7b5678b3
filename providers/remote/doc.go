// Package remote is what the providers of remote KMSs have in common. A provider
// implements Key, which is the vendor's API and nothing else; New makes a
// core.KeyProvider of it. It exists so that what every provider owes the ring is
// written, and tested, once: a closed provider fails, a call ends, a data key has
// its size, and a wrap is seen to open before anybody relies on it. A provider takes from
// it as well how errors are told (Answers, ServiceError) and how a refused login is made
// again (Login).
//
// The last matters most. A service, or what stands before it, can lose the body of a
// request and wrap nothing; an emulator can open what was altered. Both answer with
// success. So every wrap is unwrapped and compared before it is returned, and before
// the first one of a process the service has to refuse an altered wrap and one that
// is bound to other aad.
//
// The package depends on core and the standard library only.
package remote
