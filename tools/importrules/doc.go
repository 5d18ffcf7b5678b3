// Package importrules has only a test: that the import rules of .golangci.yaml
// refuse what docs/design.md says they refuse. A rule whose file pattern no
// longer matches anything passes in silence, and the direction of imports is
// what keeps the core free of databases, clouds and everything else one would
// rather not audit.
package importrules
