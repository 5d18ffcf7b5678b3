// Package deposits measures depositing over HTTP on a real PostgreSQL that syncs
// to disk: the product's binary against the least that a handler can do (package
// baseline), in windows that alternate, each server in a process of its own.
package deposits
