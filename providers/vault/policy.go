package vault

import (
	"fmt"
	"strings"
)

// operation is a request to the server, and the right that it needs.
type operation struct {
	name       string // for errors
	path       string // within the namespace, without "/v1/"
	capability string // "" where every token has the right by Vault's default policy
	kind       kind
	read       bool // GET instead of PUT
	help       bool // asks for the description of the path
	atLogin    bool // in the namespace of the login, where the token is at home
	nowhere    bool // in a namespace that there is not
}

// kind tells groups of operations apart whose errors mean different things.
type kind int

const (
	wrapping kind = 1 << iota
	unwrapping
	random
	metadata
	asking // for rights, for help
	session
	loggingIn

	transit  = wrapping | unwrapping | random | metadata
	anything = transit | asking | session | loggingIn
)

func (s *settings) encrypt() operation {
	return operation{name: "encrypt", path: s.mount + "/encrypt/" + s.name, capability: "update", kind: wrapping}
}

func (s *settings) decrypt() operation {
	return operation{name: "decrypt", path: s.mount + "/decrypt/" + s.name, capability: "update", kind: unwrapping}
}

// randomBytes asks for core.DataKeySize bytes; the number stands in the path, where
// a policy can bind it.
func (s *settings) randomBytes() operation {
	return operation{name: "random", path: s.mount + "/random/32", capability: "update", kind: random}
}

func (s *settings) readKey() operation {
	return operation{name: "read key", path: s.keyPath(), capability: "read", kind: metadata, read: true}
}

func (s *settings) describe() operation {
	return operation{name: "help", path: s.mount + "/encrypt/" + s.name, kind: asking, read: true, help: true}
}

// describeNowhere is describe in a namespace that there is not.
func (s *settings) describeNowhere() operation {
	op := s.describe()
	op.nowhere = true
	return op
}

func capabilities() operation {
	return operation{name: "capabilities-self", path: "sys/capabilities-self", capability: "update", kind: asking, atLogin: true}
}

func (s *settings) login() operation {
	return operation{name: s.auth + " login", path: "auth/" + s.authMount + "/login", kind: loggingIn, atLogin: true}
}

var (
	lookupSelf = operation{name: "token lookup", path: "auth/token/lookup-self", kind: session, read: true, atLogin: true}
	renewSelf  = operation{name: "token renewal", path: "auth/token/renew-self", kind: session, atLogin: true}
	revokeSelf = operation{name: "token revocation", path: "auth/token/revoke-self", kind: session, atLogin: true}
)

// stanza is the part of a policy that grants an operation, to be pasted. A policy is
// written in the namespace of the login, and its paths begin there.
func (s *settings) stanza(op operation) string {
	return fmt.Sprintf(`path %q { capabilities = [%q] }`, s.policyPath(op), op.capability)
}

// policyPath is the path of an operation as the policies of the token have it.
func (s *settings) policyPath(op operation) string {
	if op.atLogin {
		return op.path
	}
	return strings.TrimPrefix(s.full(op.path), s.authNamespace+"/")
}

// space is the namespace of an operation, for people.
func (s *settings) space(op operation) string {
	name := s.namespace
	if op.atLogin {
		name = s.authNamespace
	}
	if name == "" {
		return "root"
	}
	return name
}

// where tells the namespace that a policy or a key belongs to, if there is one.
func (s *settings) where() string {
	if s.namespace == "" {
		return ""
	}
	return " in the namespace " + s.namespace
}
