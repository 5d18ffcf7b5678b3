// Package servers is the directory of MCP servers: where a server is that a credential is
// for, what is sent to it, and how its grants are made. It comes from a file of the
// operator's, from Forest, or from both; without either it is empty, and access tokens are
// given out all the same.
//
// Whoever edits the directory decides where bearers go: see docs/threat-model.md. So every
// URL in it is judged as a token endpoint is, when it is read and, by package egress, when it
// is connected to.
package servers
