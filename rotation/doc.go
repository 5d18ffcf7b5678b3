// Package rotation moves a store from one key to another while it is in use:
// wraps of the data keys are added and pruned, the primary data key is rolled,
// stale records are sealed anew, and data keys that no record needs are
// destroyed. It decides the order in which that is safe, and ends with a report
// that says what still depends on which key, and whether anything does.
//
// Every step can be stopped anywhere and begun again: each looks at what is
// there, does what is missing, and removes nothing that could be needed to open
// what exists. Re-sealing is cut into ranges of rows that any instance works on;
// a row that changed since it was read is left to whoever changed it, and one
// that does not open is named and left as it is.
package rotation
