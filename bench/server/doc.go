// Package server runs what is measured over HTTP in processes of their own, so
// that their CPU time and memory are not those of the client or the database. It
// builds the product's binary as a user would, from the module's own go.mod.
package server
