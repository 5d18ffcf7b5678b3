// Package envkey is the key provider that needs nothing else installed: its KEK
// is derived from one environment variable, or from a file that holds the same
// text. It exists because that variable is what these deployments already have;
// it is the default, and the same variable also opens what the upstream executor
// wrote (see Keys.LegacyKeys).
//
// From the value, HKDF-SHA256 (RFC 5869) gives the KEK, and independently of it
// the KEK ID: "envkey:" and 16 hexadecimal digits. The ID is shown in logs and
// stored beside every wrap, and whoever sees it can test guesses of the value
// against it. A value that can be guessed is therefore refused unless the
// operator insists; one that cannot, such as the output of
// "openssl rand -hex 32", loses nothing by being named.
//
// The bytes of the value are used exactly: upstream used them so, and a key that
// is silently trimmed is another key. White space around a value is reported with
// both KEK IDs that could be meant. A value that is not UTF-8 is no KEK, since
// upstream replaces such bytes and different values would become one key; it may
// still be a previous key and open legacy records.
//
// The current key may come from a file that does not exist yet. It is taken up
// when it appears; once taken up it is never exchanged in a running process, and
// a file that changes is reported instead.
package envkey
