// Package pgtest gives tests a real PostgreSQL, and PgBouncer in front of it,
// that nobody has to set up: clusters in temporary directories, owned by the
// test process and gone with it, even when it is killed. It exists because what
// a store promises about locks, durability and connections can only be seen on
// the real server, and because such tests should run wherever its programs are
// installed.
//
// Where they are not, a test is skipped by name; with
// LOCKWOOD_TEST_REQUIRE_SERVERS=1 in the environment it fails instead, so that
// CI cannot lose tests silently.
//
// Clusters sync what they write as a server in production does (fsync on) unless asked
// not to. In the short form of the tests their files are in memory, see package tmptest.
package pgtest
